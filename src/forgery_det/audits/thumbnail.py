"""Is it the subject matter? A classifier that sees no forensic trace at all.

An 8 x 8 thumbnail and a colour histogram hold layout, palette and brightness, but nothing of the pixels' fine
structure. If they tell the label, the classes show different things (posters against landscapes, say), and part of any
detector's AUROC on this dataset may be just that. It is a warning, not a failure: some generators do paint differently.
But a detector's AUROC has to be read beside this one.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from forgery_det.audits.context import AuditContext
from forgery_det.audits.report import AuditFinding
from forgery_det.audits.shortcut import Shortcut, shortcut_findings
from forgery_det.metrics.inputs import FloatArray
from forgery_det.transforms.preprocess import ImageArray, resize

SIDE_PX = 8
BINS = 4
"""Levels of each of red, green and blue in the histogram."""
N_FEATURES = 3 * SIDE_PX**2 + BINS**3

_MEANING = (
    "A thumbnail holds no forensic trace, so the classes differ in what they show. Part of a detector's AUROC may "
    "be subject matter: compare it with this value, and balance the contents of the classes."
)


def _linear(seed: int) -> Pipeline:
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000, random_state=seed)
    return make_pipeline(StandardScaler(), model)


def thumbnail_content(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return whether thumbnails and colours tell the label: overall, by split, by generator."""
    frame = context.sample(context.options.max_images)
    features = context.map_images(frame["path"], content_features)
    usable_N = np.array([feature is not None for feature in features], dtype=bool)
    feature_NF = np.array([feature for feature in features if feature is not None]).reshape(-1, N_FEATURES)
    shortcut = Shortcut(
        "thumbnail_content",
        f"Thumbnails of {SIDE_PX} x {SIDE_PX} px and colour histograms",
        _MEANING,
        "warn",
        partial(_linear, context.options.seed),
    )
    return shortcut_findings(context, shortcut, frame.filter(usable_N), feature_NF)


def content_features(image_HWC: ImageArray) -> FloatArray:
    """Return thumbnail (each value in [0, 1]) and square roots of the histogram's shares, [8 * 8 * 3 + 64].

    Example:
        >>> content_features(np.zeros((20, 30, 3), np.uint8)).shape
        (256,)
    """
    thumbnail = resize(image_HWC, SIDE_PX, SIDE_PX, "box").astype(np.float64).ravel() / 255.0
    level_HWC = image_HWC.astype(np.int64) * BINS // 256
    cell_HW = (level_HWC[..., 0] * BINS + level_HWC[..., 1]) * BINS + level_HWC[..., 2]
    share = np.bincount(cell_HW.ravel(), minlength=BINS**3) / cell_HW.size
    # The square root evens out the variance of counts (Hellinger), so that rare colours count too.
    return np.concatenate([thumbnail, np.sqrt(share)])
