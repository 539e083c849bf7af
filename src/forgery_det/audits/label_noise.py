"""Which labels look wrong? Images whose label is contradicted by a probe that never saw their source.

A grouped cross-validation gives each image a logit from a classifier that was fitted on other sources. The features are
cheap: the thumbnail and colours of `thumbnail_content`, and `pixel_statistics`. `noise_rate` then asks whether the
labels fit these logits better if some are flipped, and how likely each one is wrong. A source counts once, with the
mean logit of its images of one label. The images are listed by that probability, the likeliest first (as in confident
learning: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021, arXiv
1911.00068, whose thresholds have no test of "none").

A group of images unlike their class (an odd generator, screenshots among photographs) is contradicted just as wrong
labels are: so it warns and never fails, and somebody has to look. A probe that cannot tell the classes (interval of its
AUROC not wholly above `noise_auroc`) has no say.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from forgery_det.audits.context import AuditContext
from forgery_det.audits.leaks import SHOWN_ROWS
from forgery_det.audits.noise_rate import fit_noise_rate
from forgery_det.audits.pixel_statistics import N_STATISTICS, pixel_statistics
from forgery_det.audits.probe import Probe, run_probe
from forgery_det.audits.report import AuditFinding, Level
from forgery_det.audits.thumbnail import N_FEATURES, content_features
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.inputs import FloatArray, IntArray
from forgery_det.transforms.preprocess import ImageArray

P_LIMIT = 0.01
P_LISTED = 0.5
"""Listed are the labels that are more likely wrong than right."""
THUMBNAIL_WEIGHT = 0.1
"""The 256 content features would drown the 32 of the pixels at equal weight."""


def label_noise(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return the images whose label a cross-validated probe contradicts; warns at most."""
    frame = context.sample(context.options.max_images)
    found = context.map_images(frame["path"], _features)
    usable = pl.Series([one is not None for one in found], dtype=pl.Boolean)
    feature_NF = np.array([one for one in found if one is not None]).reshape(-1, N_FEATURES + N_STATISTICS)
    frame = frame.filter(usable)
    label_N = frame["label"].to_numpy().astype(np.int64)
    group_N = frame["source_id"].to_numpy().astype(np.str_)
    options = context.options
    try:
        probe = run_probe(feature_NF, label_N, group_N, partial(_linear, options.seed), options.seed)
    except NotEstimableError as error:
        return (_no_say(frame.height, f"Labels: {error}."),)
    estimate = probe.estimate(None, n_replicates=options.n_replicates, seed=options.seed)
    low = estimate.value if estimate.ci_low is None else estimate.ci_low
    if low is None or low <= options.noise_auroc:
        return (_no_say(frame.height, _too_weak(estimate, options.noise_auroc)),)
    return (_judged(frame, probe, estimate, context.sample_note(frame.height)),)


def _features(image_HWC: ImageArray) -> FloatArray:
    return np.concatenate([content_features(image_HWC), pixel_statistics(image_HWC)])


def _weighted(feature_NF: FloatArray) -> FloatArray:
    return np.concatenate([THUMBNAIL_WEIGHT * feature_NF[:, :N_FEATURES], feature_NF[:, N_FEATURES:]], axis=1)


def _linear(seed: int) -> Pipeline:
    model = LogisticRegression(C=0.3, class_weight="balanced", max_iter=2000, random_state=seed)
    return make_pipeline(StandardScaler(), FunctionTransformer(_weighted), model)


def source_labels(probe: Probe) -> tuple[IntArray, FloatArray]:
    """Return label and mean logit of each source; a source with images of both labels gives two.

    Example:
        >>> probe = Probe(np.array([0, 0, 1]), np.array([-1.0, -3.0, 2.0]), np.array(["a", "a", "b"]))
        >>> label, logit = source_labels(probe)
        >>> label.tolist(), logit.tolist()
        ([0, 1], [-2.0, 2.0])
    """
    _, group_N = np.unique(probe.group_N, return_inverse=True)
    code_K, code_N = np.unique(2 * group_N + probe.label_N, return_inverse=True)
    return code_K % 2, np.bincount(code_N, weights=probe.logit_N) / np.bincount(code_N)


def _judged(frame: pl.DataFrame, probe: Probe, estimate: Estimate, note: str) -> AuditFinding:
    found = fit_noise_rate(*source_labels(probe))
    p_wrong_N = found.p_wrong(probe.label_N, probe.logit_N)
    listed = [int(index) for index in np.argsort(-p_wrong_N, kind="stable") if p_wrong_N[index] > P_LISTED]
    level: Level = "warn" if found.p_value <= P_LIMIT else "pass"
    told = (
        f"A probe (AUROC {estimate.value:.2f}) lets expect {found.rate:.1%} [{found.low:.1%}, {found.high:.1%}] of the "
        f"sources with a wrong label (p = {found.p_value:.2g} for none)"
    )
    if level == "warn":
        told += f". {len(listed)} labels are more likely wrong than right. Look at them: wrong, or unlike their class?"
    else:
        told += f", which is not shown to be more than none. {len(listed)} candidates are listed."
    columns = frame.select("image_id", "path", "label", "generator", "source_id", "split")
    rows = tuple(
        {**columns.row(index, named=True), "p_wrong": round(float(p_wrong_N[index]), 4)}
        for index in listed[:SHOWN_ROWS]
    )
    return AuditFinding(
        "label_noise", "overall", level, found.rate, found.low, found.high, 0.0, frame.height, told + note, rows
    )


def _too_weak(estimate: Estimate, limit: float) -> str:
    if estimate.value is None:
        return f"Labels: {estimate.note}."
    interval = "" if estimate.ci_low is None else f" [{estimate.ci_low:.2f}, {estimate.ci_high:.2f}]"
    return (
        f"The probe cannot tell the classes well enough to doubt a label: AUROC {estimate.value:.2f}{interval}, wholly "
        f"above {limit:g} needed."
    )


def _no_say(n: int, detail: str) -> AuditFinding:
    return AuditFinding("label_noise", "overall", "not_estimable", None, None, None, None, n, detail)
