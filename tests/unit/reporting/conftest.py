"""A seeded `ReportData` that holds every kind of content, hostile texts included."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from forgery_det.core.types import MetricRecord
from forgery_det.reporting.data import (
    SHORTCUT_METRIC,
    AuditRow,
    BadFileRow,
    Bar,
    Caveat,
    Gallery,
    Histogram,
    HistogramSeries,
    Mistake,
    ReportData,
    RocLine,
    SliceGroup,
    SliceInfo,
    Threshold,
    Verdict,
)

HOSTILE = "<script>alert(1)</script> | [x](http://evil) `y` $z^2$ &amp; \u202egnp\n# heading"
METRICS = ("auroc", "average_precision", "prevalence", "balanced_accuracy@balanced", "tpr@fpr_1pct", "tpr@fpr_5pct")
GENERATORS = {
    "stable-diffusion-3.5-large": ("seen", 0.985, 60),
    "flux.1-dev": ("seen", 0.972, 48),
    "sdxl-1.0": ("seen", 0.991, 31),
    "janus-pro-7b": ("held_out", 0.913, 22),
    "qwen-image": ("held_out", 0.941, 35),
    "gpt-image-1": ("held_out", 0.884, 18),
    "hidream-i1": ("held_out", 0.952, 3),
    "omnigen2 <b>&": ("held_out", 0.871, 12),
}


def _thumbnail(generator: np.random.Generator) -> bytes:
    height, width = ((160, 240), (240, 160), (200, 200))[int(generator.integers(3))]
    coarse = generator.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "webp", quality=80)
    return buffer.getvalue()


def _records(key: str, auroc: float, n_real: int, n_generated: int, metrics: tuple[str, ...]) -> list[MetricRecord]:
    records = []
    for metric in metrics:
        n = n_real + n_generated
        if metric == "prevalence":
            records.append(MetricRecord(metric, key, n_generated / n, None, None, n, None))
        elif 0 < n_generated < 5:
            why = f"not estimable (n = {n_generated} generated images, fewer than 5)"
            records.append(MetricRecord(metric, key, None, None, None, n, True, why))
        else:
            value = {"auroc": auroc, "tpr@fpr_1pct": auroc - 0.35, "tpr@fpr_5pct": auroc - 0.15}.get(
                metric, auroc - 0.05
            )
            value = 0.021 if metric.startswith("fpr") else value
            half = 0.6 / max(n_generated, 10) ** 0.5 * 0.4
            note = "interval unreliable (4 real and 12 generated clusters, fewer than 5)" if n_generated == 12 else ""
            low, high = max(0.0, value - half), min(1.0, value + half)
            records.append(MetricRecord(metric, key, value, low, high, n, not metric.startswith("fpr"), note))
    return records


def make_report_data() -> ReportData:
    rng = np.random.default_rng(7)
    n_real = 96
    overall = [
        SliceInfo("overall", "all generators", "all", n_real, 229),
        SliceInfo("exposure=seen", "generators seen in training", "seen", n_real, 139),
        SliceInfo("exposure=held_out", "held-out generators", "held_out", n_real, 90),
    ]
    by_generator = [SliceInfo(f"generator={g}", g, e, n_real, n) for g, (e, _, n) in GENERATORS.items()]
    words = [("1-20", 0.95, 40), ("21-60", 0.93, 61), ("61-150", 0.90, 33), ("151+", 0.0, 2)]
    by_words = [SliceInfo(f"prompt_words={w}", w, "all", n_real, n) for w, _, n in words]
    sources = [SliceInfo(f"source={s}", s, "real", n, 0) for s, n in (("scikit-image", 31), ("kodak-style photos", 65))]
    fpr = ("fpr@fpr_1pct", "fpr@fpr_5pct")
    records: list[MetricRecord] = []
    for info, value in zip(overall, (0.962, 0.984, 0.921), strict=True):
        records += _records(info.key, value, n_real, info.n_generated, METRICS + fpr)
    for info in by_generator:
        records += _records(info.key, GENERATORS[info.name][1], n_real, info.n_generated, METRICS)
        thumbnail = GENERATORS[info.name][1] - 0.1
        records.append(MetricRecord(SHORTCUT_METRIC, info.key, thumbnail, thumbnail - 0.1, 0.97, n_real, None))
    for info, (_, value, _) in zip(by_words, words, strict=True):
        records += _records(info.key, value, n_real, info.n_generated, METRICS)
    for info in sources:
        records += _records(info.key, 0.0, info.n_real, 0, fpr)

    def roc(name: str, exposure: str, power: float) -> RocLine:
        x = np.linspace(0, 1, 60)
        return RocLine(name, exposure, tuple(x.tolist()), tuple((x**power).tolist()))

    edge = np.linspace(-6, 7, 41)
    draws = {"real": (-2.2, 96), "seen": (3.1, 139), "held_out": (1.6, 90)}
    names = {"real": "real", "seen": "generated, seen", "held_out": "generated, held out"}
    series = tuple(
        HistogramSeries(names[e], e, tuple(np.histogram(rng.normal(m, 1.3, n).clip(-6, 7), edge)[0].tolist()))
        for e, (m, n) in draws.items()
    )

    def mistake(kind: str, index: int) -> Mistake:
        miss = kind == "miss"
        name = list(GENERATORS)[3 + index % 5] if miss else "camera"
        prompt = (
            (HOSTILE if index == 0 else "A photograph of a quiet harbour at dawn, long shadows. " * 6) if miss else None
        )
        logit = (-2.5 + 0.4 * index) if miss else 3.0 - 0.4 * index
        picture = b"" if index == 5 else _thumbnail(rng)
        source = "comfyui-templates" if miss else "scikit-image"
        score = float(1 / (1 + np.exp(-logit)))
        return Mistake(
            kind, f"{index:064x}", f"images/{index}.webp", name, source, logit, score, index < 4, prompt, picture
        )

    return ReportData(
        title="frozen_probe on samples",
        dataset="samples, split test",
        detector="frozen_probe",
        verdict=Verdict(
            "problem",
            "On generators it never saw, a generated image gets a higher logit than a real one 92.1% of the time "
            "(AUROC 0.921, 95 % interval 0.874 to 0.958, n = 186).",
            (
                Caveat(
                    "problem",
                    "Thumbnail only: AUROC 0.874, 95 % interval 0.812 to 0.926 (a classifier on a tiny "
                    "thumbnail: what the picture shows, no fine detail). That is close to the detector's own 0.921: "
                    "it may have learnt only that.",
                ),
                Caveat("doubt", "The true AUROC may be as low as 0.87."),
                Caveat("doubt", "On generators seen in training the AUROC is 0.984: a new generator costs about 0.06."),
                Caveat("ok", "File facts only: AUROC 0.531. This shortcut explains little."),
            ),
        ),
        comparison=(
            Bar("detector, held out", "detector", 0.921, 0.874, 0.958, 186),
            Bar("detector, seen", "detector", 0.984, 0.968, 0.995, 235),
            Bar("detector, all", "detector", 0.962, 0.941, 0.979, 325),
            Bar("thumbnail only", "shortcut", 0.874, 0.812, 0.926, 490, "what the picture shows, no fine detail"),
            Bar("file facts only", "shortcut", 0.531, 0.462, 0.601, 490, "size, codec and quality, without any pixel"),
        ),
        groups=(
            SliceGroup("overall", "Overall", "", METRICS + fpr, tuple(overall)),
            SliceGroup(
                "generator",
                "By generator",
                "Against all real images of the split.",
                (METRICS[0], SHORTCUT_METRIC, *METRICS[1:]),
                tuple(by_generator),
            ),
            SliceGroup("prompt_words", "By prompt length", "Words in the prompt.", METRICS, tuple(by_words)),
            SliceGroup("source", "False alarms by source of real images", "", fpr, tuple(sources)),
        ),
        records=tuple(records),
        metric_titles={
            "auroc": "AUROC",
            SHORTCUT_METRIC: "thumbnail only",
            "average_precision": "average precision",
            "prevalence": "AP of chance",
            "balanced_accuracy@balanced": "balanced accuracy",
            "tpr@fpr_1pct": "TPR at 1 % FPR",
            "tpr@fpr_5pct": "TPR at 5 % FPR",
            "fpr@fpr_1pct": "FPR reached (1 % wanted)",
            "fpr@fpr_5pct": "FPR reached (5 % wanted)",
        },
        metric_explanations={"auroc": "chance that a generated image gets a higher logit than a real one"},
        roc=(
            roc("all generators (n = 229)", "all", 0.05),
            roc("seen in training (n = 139)", "seen", 0.02),
            roc("held out (n = 90)", "held_out", 0.12),
        ),
        histogram=Histogram(tuple(edge.tolist()), series),
        thresholds=(
            Threshold("1 % FPR", 0.91, "val split of samples (80 images, 40 real)", "val has only 40 real images"),
            Threshold("5 % FPR", 0.12, "val split of samples (80 images, 40 real)"),
            Threshold("balanced", -0.2, "val split of samples (80 images, 40 real)"),
        ),
        gallery=Gallery(
            "The 12 worst of each kind, at most one for each source_id; “wrong” is judged by 5 % FPR.",
            tuple(mistake("false_alarm", i) for i in range(7)),
            tuple(mistake("miss", i) for i in range(12)),
        ),
        audit=(
            AuditRow(
                "thumbnail_content", "overall", "warn", 0.874, 0.812, 0.926, 0.6, 490, "A thumbnail holds no trace."
            ),
            AuditRow("file_facts", "overall", "pass", 0.531, 0.462, 0.601, 0.6, 490, ""),
            AuditRow(
                "duplicates", "split=test", "fail", 2.0, None, None, 0.0, 490, HOSTILE, waived="known <i>pair</i>"
            ),
        ),
        bad_files=(BadFileRow("f" * 64, "images/ff/" + HOSTILE, "truncated: Expected 1200 bytes, got 800"),),
        facts={
            "Images": "96 real, 229 generated, 301 source_ids",
            "Intervals": "95 %, 1000 bootstrap replicates of source_ids",
        },
        config={"checkpoint": "runs/quickstart/run/checkpoints/best.ckpt", "split": "test", "seed": 0, "note": HOSTILE},
        versions={"python": "3.11.9", "torch": "2.15.0"},
    )


@pytest.fixture(scope="session")
def report_data() -> ReportData:
    return make_report_data()


@pytest.fixture(scope="session")
def hostile() -> str:
    return HOSTILE
