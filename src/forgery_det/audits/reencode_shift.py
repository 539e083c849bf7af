"""How much of a detector's score on this dataset is the trace of the last codec?

Save every image of the test split again in the same way, score both versions, and compare on the same images:

    shift = AUROC(as stored) - AUROC(re-encoded),       paired cluster bootstrap over `source_id`s.

A real forensic trace is weakened by that alike in all images; a difference in codec history between the classes is
covered by it. On GenImage, giving both classes one JPEG quality changed cross-generator accuracy by 11 points (Grommelt
et al., "Fake or JPEG?", arXiv 2403.17608). A shift either way whose whole interval lies beyond `reencode_limit` fails:
the dataset and this detector together measure the codec. It needs a checkpoint; without one nothing is said.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import polars as pl

from forgery_det.audits.context import AuditContext
from forgery_det.audits.probe import check_groups
from forgery_det.audits.report import AuditFinding, Level
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.core.manifest import Manifest
from forgery_det.metrics.comparison import Comparison
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.paired_bootstrap import paired_bootstrap
from forgery_det.metrics.ranking import auroc
from forgery_det.transforms.preprocess import ImageArray

CODECS = (("jpeg", 75), ("webp", 80))
SPLIT = "test"


def reencode_shift(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return how far the AUROC of `checkpoint` on the test split moves under each shared re-encoding.

    Raises:
        WeightsError: The checkpoint does not fit.
    """
    options = context.options
    if options.checkpoint is None:
        return (_silent("overall", 0, "No checkpoint was given (`--checkpoint`), so no detector was tried."),)
    # Sorted by `image_id`, which is a hash: the first ones are a random choice.
    frame = context.sample(None).filter(pl.col("split") == SPLIT)[: options.max_images]
    if not frame.height:
        return (_silent("overall", 0, f"There is no {SPLIT} split to try the detector on."),)
    # Imported here: torch takes seconds, and all other audits do without it.
    from forgery_det.audits.detector_logits import load_detector, logits

    images = Manifest(frame, context.manifest.root)
    detector = load_detector(options.checkpoint, options.device)
    score = partial(logits, detector, images, batch_size=options.batch_size, device=options.device)
    stored = score(change=None)
    return tuple(
        _finding(
            context,
            f"codec={codec},quality={quality}",
            frame,
            stored,
            score(change=partial(reencoded, codec=codec, quality=quality)),
        )
        for codec, quality in CODECS
    )


def reencoded(image_HWC: ImageArray, codec: str, quality: int) -> ImageArray:
    """Return the pixels of an image that was saved once more.

    Example:
        >>> reencoded(np.zeros((9, 7, 3), np.uint8), "jpeg", 75).shape
        (9, 7, 3)
    """
    return decode_image(encode_image(image_HWC, codec, quality)).image_HWC


def _finding(
    context: AuditContext, where: str, frame: pl.DataFrame, stored: dict[str, float], again: dict[str, float]
) -> AuditFinding:
    used = frame.filter(pl.col("image_id").is_in(sorted(set(stored) & set(again))))
    label_N = used["label"].to_numpy().astype(np.int64)
    group_N = used["source_id"].to_numpy().astype(np.str_)
    try:
        check_groups(label_N, group_N)
    except NotEstimableError as error:
        return _silent(where, used.height, f"Shift under a shared re-encoding: {error}.")
    before_N, after_N = (np.array([scores[one] for one in used["image_id"]]) for scores in (stored, again))
    options = context.options
    shift = paired_bootstrap(
        "auroc", label_N, before_N, after_N, group_N, n_replicates=options.n_replicates, seed=options.seed
    )
    level = level_of(shift, options.reencode_limit)
    values = auroc(label_N, before_N), auroc(label_N, after_N)
    return AuditFinding(
        name="reencode_shift",
        slice=where,
        level=level,
        value=shift.difference,
        ci_low=shift.ci_low,
        ci_high=shift.ci_high,
        limit=options.reencode_limit,
        n=shift.n,
        detail=_sentence(where, values, shift, level, options.reencode_limit, frame.height - used.height),
    )


def level_of(shift: Comparison, limit: float) -> Level:
    """Return `fail` if the whole interval of the shift lies beyond the limit, on either side.

    Example:
        >>> level_of(Comparison(0.2, 0.1, 0.3, 0.01, 90), 0.05), level_of(Comparison(0.2, 0.01, 0.4, 0.04, 90), 0.05)
        ('fail', 'pass')
    """
    if shift.difference is None:
        return "not_estimable"
    low = shift.difference if shift.ci_low is None else shift.ci_low
    high = shift.difference if shift.ci_high is None else shift.ci_high
    return "fail" if low > limit or high < -limit else "pass"


def _sentence(
    where: str, values: tuple[float, float], shift: Comparison, level: Level, limit: float, left_out: int
) -> str:
    interval = "" if shift.ci_low is None else f" [{shift.ci_low:.2f}, {shift.ci_high:.2f}]"
    told = f"AUROC {values[0]:.2f} as stored, {values[1]:.2f} when all images are saved again ({where})"
    told += f": shift {shift.difference:.2f}{interval}"
    told += f" ({shift.note})" if shift.note else ""
    note = f" {left_out} images could not be scored." if left_out else ""
    if level == "fail":
        return (
            f"{told}, wholly beyond {limit:g}. This detector reads the last codec of these files: compare detectors on "
            f"re-encoded images too, and train with compression among the augmentations.{note}"
        )
    if shift.ci_high is not None and shift.ci_low is not None and max(shift.ci_high, -shift.ci_low) > limit:
        return f"{told}; the interval reaches beyond {limit:g}, so a shift is not excluded.{note}"
    return f"{told}, limit {limit:g}.{note}"


def _silent(where: str, n: int, detail: str) -> AuditFinding:
    return AuditFinding("reencode_shift", where, "not_estimable", None, None, None, None, n, detail)
