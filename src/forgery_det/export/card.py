"""`MODEL_CARD.md`: what a platform team must know before it trusts the model, from the files and nothing else.

The sections follow Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019): details, training data, results with
intervals, decisions, limits, licence, use. What is not known is said to be not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from forgery_det.core.types import MetricRecord
from forgery_det.export.document import Subject
from forgery_det.export.measure import Measured
from forgery_det.reporting.text import markdown, with_interval


def model_card(subject: Subject, document: Mapping[str, Any], measured: Measured, n_golden: int) -> str:
    """Return the card.

    Args:
        subject: What is exported.
        document: Content of `bundle.json`.
        measured: Parity.
        n_golden: Golden images in the bundle.
    """
    card = subject.detector.card
    sections = [
        [f"# {card.name} {document['version']}", "", *_details(subject, document)],
        ["## Training data", "", *_training(subject)],
        ["## Held-out results", "", *_results(subject)],
        ["## Decisions", "", *_decisions(document)],
        ["## Known failures and doubts", "", *_failures(subject)],
        ["## Parity with the trained detector", "", *_parity(measured, n_golden)],
        ["## Licence", "", *_licence(subject)],
        ["## How to use it", "", *_use()],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _details(subject: Subject, document: Mapping[str, Any]) -> Iterable[str]:
    card = subject.detector.card
    yield f"Detects AI-generated images: {markdown(card.summary)}."
    yield ""
    yield f"- Method: {markdown(card.paper)} ({card.year})."
    yield f"- Backbone: {markdown(card.backbone)}. It sees: {markdown(card.input)}."
    shape = " x ".join("any" if side is None else str(side) for side in document["input"]["shape"])
    yield f"- Input of the graph: `{document['input']['name']}`, float32 RGB in [0, 1], {shape}."
    yield "- Output: `logit` (higher = generated) and `score`, the probability of being generated, calibrated on `val`."
    yield f"- Made by forgery-det {document['tool_version']} from the checkpoint {subject.checkpoint_sha256[:12]}."


def _training(subject: Subject) -> Iterable[str]:
    training = subject.facts.training
    if not training:
        yield "The checkpoint has no record of its training."
        return
    known = {
        "dataset": "Dataset",
        "n_train": "Images trained on",
        "n_val": "Images of val",
        "n_val_real": "of them real",
    }
    for key, words in known.items():
        if key in training:
            yield f"- {words}: {markdown(str(training[key]))}"
    generators = training.get("generators")
    if generators:
        yield f"- Generators seen ({len(generators)}): {markdown(', '.join(map(str, generators)))}"
    else:
        yield "- Generators seen: not recorded. No generator can be called held out."


def _results(subject: Subject) -> Iterable[str]:
    held_out = subject.held_out
    if held_out is None:
        yield "No evaluation was given to the export, so there are none. Export again with `--run RUN`."
        return
    yield f"Split `{markdown(held_out.split)}` of {markdown(held_out.dataset)}, judged by `forgery-det evaluate`."
    if held_out.n_failed:
        yield f"{held_out.n_failed} files could not be scored and count in none of these numbers."
    yield ""
    rows = []
    for row in held_out.results:
        values = {key: row[key] for key in ("metric", "slice", "value", "ci_low", "ci_high", "n", "note")}
        record = MetricRecord(**values, higher_is_better=None)
        rows.append((f"`{row['metric']}`", markdown(row["slice"]), markdown(with_interval(record)), str(row["n"])))
    yield from _table(("metric", "slice", "value [95 % interval]", "n"), rows)


def _decisions(document: Mapping[str, Any]) -> Iterable[str]:
    points = document["operating_points"]
    if points is None:
        yield "The detector is not calibrated: it gives logits and no decisions."
    else:
        yield "An image is called generated where `logit >= threshold`; the thresholds were chosen on `val`."
        yield ""
        default = document["default_operating_point"]
        rows = [
            (f"`{name}`" + (" (default)" if name == default else ""), f"{value:.4f}") for name, value in points.items()
        ]
        yield from _table(("operating point", "threshold"), rows)
        yield ""
        yield f"Temperature: {document['temperature']:.4f} (inside the graph)."
    yield ""
    band = document["abstention"]
    if band is None:
        yield "Abstention: `val` is too small to estimate where to abstain."
    else:
        yield (
            f"Abstention: a logit strictly between {band['low']:.4f} and {band['high']:.4f} is `uncertain` (split "
            f"conformal on `val`: of the images of each class at most {band['alpha']:.0%} get a wrong answer, if they "
            "are like those of `val`; images of new generators are not)."
        )


def _failures(subject: Subject) -> Iterable[str]:
    yield "- A score is no proof. The detector answers about traces it learnt, not about where a picture comes from."
    yield "- Images of generators it never saw, screenshots, heavy recompression and small pictures lower its accuracy."
    if subject.held_out is None:
        yield "- Nobody evaluated this model in a run that the export was given."
        return
    for caveat in subject.held_out.caveats:
        yield f"- {markdown(caveat)}"
    for row in worst_slices(subject.held_out.results):
        yield f"- {markdown(row['slice'])}: AUROC {row['value']:.3f}, clearly below the AUROC over all images."


def worst_slices(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the slices whose AUROC interval lies wholly below the overall AUROC, lowest first."""
    scored = [row for row in results if row["metric"] == "auroc" and row["value"] is not None]
    overall = next((row["value"] for row in scored if row["slice"] == "overall"), None)
    if overall is None:
        return []
    below = [row for row in scored if row["ci_high"] is not None and row["ci_high"] < overall]
    return sorted(below, key=lambda row: float(row["value"]))


def _parity(measured: Measured, n_golden: int) -> Iterable[str]:
    n, n_val = len(measured.eager.path), measured.n_val
    yield f"Measured on {n} of {n_val} images of `val` of {markdown(measured.dataset)} before the bundle was written."
    yield ""
    rows = [
        (
            f"`{row.format}`", row.precision, f"{row.max_abs:.1e}", f"{row.mean_abs:.1e}", f"{row.auroc:.4f}",
            f"{row.auroc_eager:.4f}", ", ".join(f"{point} {flips}" for point, flips in row.flips.items()) or "-",
        )
        for row in measured.rows
    ]  # fmt: skip
    head = (
        "format",
        "precision",
        "max logit difference",
        "mean",
        "AUROC",
        "AUROC of the detector",
        "decisions flipped",
    )
    yield from _table(head, rows)
    yield ""
    yield f"{n_golden} golden images travel in `golden/`: `forgery-det self-test BUNDLE` asks the runtime about them."


def _licence(subject: Subject) -> Iterable[str]:
    card = subject.detector.card
    yield f"- Model: {markdown(subject.licence)}"
    if card.licence:
        yield f"- Official weights of the method: {markdown(card.licence)}"
    yield f"- Images of {markdown(subject.manifest.name)} (trained and measured on; golden images come from it):"
    counts = subject.manifest.frame["licence"].value_counts().sort(pl.col("count"), "licence", descending=[True, False])
    for licence, count in counts.iter_rows():
        yield f"  - {count}: {markdown(str(licence))}"


def _use() -> Iterable[str]:
    yield "```"
    yield "pip install 'forgery-det[serve]'"
    yield "forgery-det self-test BUNDLE"
    yield "forgery-det predict BUNDLE picture.jpg"
    yield "forgery-det serve BUNDLE"
    yield "```"
    yield ""
    yield "Check the files with `sha256sum -c SHA256SUMS`. Geometry (`preprocess` in `bundle.json`) is not in it:"
    yield "use `forgery_det.Predictor`, or do exactly what the steps say, on uint8, in Pillow's arithmetic."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
