"""Can the label be told without opening the image?

`file_facts` asks it of the stored files: width, height, aspect, bytes per pixel, codec, JPEG quality. If these suffice,
a detector may have learnt them: JPEG and size bias was worth 11 points of accuracy on GenImage (Grommelt et al., "Fake
or JPEG?", arXiv 2403.17608). Gradient-boosted trees are used because "exactly 1024 x 1024" is no linear rule.

Bytes per pixel are a special case. With several codecs or qualities they give the quality away. Under one codec policy
they only measure how busy the picture is, which is content, so then they raise a warning, not a failure. One policy
counts as proven by `dataset.json` (align), by a lossless codec, or by one JPEG quality.

`origin_facts` asks the same of the files before alignment (`origins.parquet`). Alignment removes these facts from the
files, but an earlier JPEG or an earlier resize can survive in the pixels. It is shown, and never fails.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier

from forgery_det.audits.context import AuditContext
from forgery_det.audits.facts import read_origins
from forgery_det.audits.report import AuditFinding
from forgery_det.audits.shortcut import Shortcut, gathered, judged, measure, shortcut_findings
from forgery_det.core.manifest import Manifest
from forgery_det.core.stored import stored_size
from forgery_det.metrics.inputs import FloatArray
from forgery_det.metrics.ranking import auroc

BYTES_PER_PIXEL = "bytes_per_pixel"
_LOSSLESS = frozenset({"png", "gif"})

_MEANING = (
    "A detector can score well here without looking at a single pixel. Give real and generated images one size and one "
    "codec policy (align in the recipe)."
)
_DENSITY_MEANING = (
    "The files share one codec policy, so bytes per pixel only say how busy a picture is: the classes differ in "
    "texture or noise. That may be subject matter as well as forgery; see thumbnail_content."
)
_ORIGIN_MEANING = (
    "The stored files are aligned, but traces of an earlier codec or resize can survive in the pixels. Test the "
    "detector on images whose classes have the same history before you trust its score."
)


def _trees(seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=40,
        max_leaf_nodes=8,
        min_samples_leaf=5,
        class_weight="balanced",
        early_stopping=False,
        random_state=seed,
    )


def file_facts(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return whether facts of the stored files tell the label: overall, by split, by generator."""
    frame = with_file_sizes(context.sample(context.options.max_images), context.manifest)
    facts = fact_table(frame)
    make_model = partial(_trees, context.options.seed)
    strict = Shortcut("file_facts", "Facts of the files alone", _MEANING, "fail", make_model)
    mild = replace(strict, meaning=_DENSITY_MEANING, level="warn")
    size_and_codec = shortcut_findings(context, strict, frame, as_features(facts.drop(BYTES_PER_PIXEL)))
    failed = {finding.slice for finding in size_and_codec if finding.level == "fail"}
    one_policy = one_codec_policy(context.manifest)
    everything = tuple(
        judged(context, mild if one_policy and measured.slice not in failed else strict, measured)
        for measured in measure(context, make_model, frame, as_features(facts))
    )
    overall = replace(everything[0], rows=single_facts(facts, frame["label"].to_numpy()))
    without = replace(size_and_codec[0], slice=f"facts=without_{BYTES_PER_PIXEL}")
    return gathered((overall, without, *everything[1:]))


def origin_facts(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return whether facts of the original files told the label; nothing without `origins.parquet`."""
    frame, reason = read_origins(context, context.sample(context.options.max_images))
    if frame is None:
        detail = f"{reason}, so what the files were before alignment is unknown."
        return (AuditFinding("origin_facts", "overall", "not_estimable", None, None, None, None, 0, detail),)
    facts = fact_table(frame)
    make_model = partial(_trees, context.options.seed)
    shortcut = Shortcut("origin_facts", "Facts of the original files", _ORIGIN_MEANING, "warn", make_model)
    findings = shortcut_findings(context, shortcut, frame, as_features(facts))
    return (replace(findings[0], rows=single_facts(facts, frame["label"].to_numpy())), *findings[1:])


def with_file_sizes(frame: pl.DataFrame, manifest: Manifest) -> pl.DataFrame:
    """Add `n_bytes`, null where the file is missing."""
    sizes = [stored_size(manifest.image_file(name)) for name in frame["path"]]
    return frame.with_columns(pl.Series("n_bytes", sizes, dtype=pl.Int64))


def fact_table(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the facts that the classifier sees, one numeric column each; a codec is one column of 0 and 1.

    Example:
        >>> frame = pl.DataFrame({"width_px": [4], "height_px": [2], "codec": ["png"], "n_bytes": [16]})
        >>> fact_table(frame).to_dicts()
        [{'width_px': 4.0, 'height_px': 2.0, 'aspect': 2.0, 'bytes_per_pixel': 2.0, 'codec=png': 1.0}]
    """
    columns: dict[str, pl.Expr] = {}
    if {"width_px", "height_px"} <= set(frame.columns):
        columns |= {"width_px": pl.col("width_px"), "height_px": pl.col("height_px")}
        columns["aspect"] = pl.col("width_px") / pl.col("height_px")
        if "n_bytes" in frame.columns:
            columns[BYTES_PER_PIXEL] = pl.col("n_bytes") / (pl.col("width_px") * pl.col("height_px"))
    if "jpeg_quality" in frame.columns:
        columns["jpeg_quality"] = pl.col("jpeg_quality")
    if "codec" in frame.columns:
        columns |= {f"codec={name}": pl.col("codec") == name for name in sorted(frame["codec"].drop_nulls().unique())}
    table = frame.select(**{name: expression.cast(pl.Float64) for name, expression in columns.items()})
    # Where nothing is JPEG, quality is no fact.
    return table.select(name for name in table.columns if table[name].null_count() < table.height or not table.height)


def as_features(facts: pl.DataFrame) -> FloatArray:
    """Return the facts as an array [N, F]; unknown values are NaN, which the trees take as a value of its own."""
    return np.asarray(facts.fill_null(np.nan).to_numpy(), dtype=np.float64)


def single_facts(facts: pl.DataFrame, label_N: Any) -> tuple[dict[str, Any], ...]:
    """Return for each fact how well it alone orders the classes (AUROC, either direction) and its medians."""
    if len(np.unique(label_N)) < 2:
        return ()
    rows = []
    for name in facts.columns:
        value_N = facts[name].fill_null(-1.0).to_numpy()
        separation = auroc(label_N, value_N)
        medians = {
            side: facts[name].filter(label_N == label).median() for label, side in ((0, "real"), (1, "generated"))
        }
        rows.append({"fact": name, "auroc_either_way": max(separation, 1.0 - separation), **medians})
    return tuple(sorted(rows, key=lambda row: (-row["auroc_either_way"], row["fact"])))


def one_codec_policy(manifest: Manifest) -> bool:
    """Return whether all files are known to share one codec and one quality."""
    codecs = set(manifest.frame["codec"])
    if len(codecs) != 1:
        return False
    (codec,) = codecs
    if codec in _LOSSLESS:
        return True
    if codec == "jpeg":
        quality = manifest.frame["jpeg_quality"]
        return bool(quality.null_count() == 0 and quality.n_unique() == 1)
    return bool(_recorded_codec(manifest) == codec)


def _recorded_codec(manifest: Manifest) -> str | None:
    """Return the codec of the align policy that `dataset.json` records, None without one."""
    path = manifest.root / "dataset.json"
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        return str(recorded["policies"]["align"]["codec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
