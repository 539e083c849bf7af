"""Corrupted outputs: pictures that failed to be drawn, told by four rules on pixels, validated on planted failures.

    blank     nearly all pixels are one colour, or the whole has no contrast
    noise     neighbouring pixels, or neighbouring 8 x 8 px blocks, are unrelated: pixel noise, random image tokens
    tiled     the picture equals itself shifted by an eighth of its side or more
    garbled   what lies on two sides of a regular grid does not fit together: shuffled patches, broken decoding

The rules look at the luminance at no more than 256 px. In photographs neighbouring pixels correlate at 0.9 and more,
and the jump across a grid line is that of any other place, or a few grey values more where a codec has left its blocks;
a failed drawing breaks one of these laws of natural images (Ruderman 1994). What is drawn well but wrongly, a hand of
seven fingers, is not corrupted in this sense and not seen.

How often the rules err is measured, never assumed: `validate` plants each failure into good pictures, the user's own or
crops of the two photographs that scikit-learn ships, and its counts go into the interval of every corrupted rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_facts import RGBArray
from forgery_det.core.image_io import decode_file, decode_image
from forgery_det.metrics.inputs import FloatArray
from forgery_det.metrics.misclassification import JudgeError
from forgery_det.safety.judges.base import Judge, Subject
from forgery_det.safety.types import Judgement

LONGEST_PX = 256
LIMITS: Mapping[str, float] = {"blank": 0.95, "noise": 0.82, "tiled": 0.9, "garbled": 0.3}
"""Above its limit, a rule calls a picture corrupted."""

_NO_CONTRAST = 3.0
_GRIDS_PX = (8, 16, 32, 64)
_CROP_PX = 160
_SUFFIXES = (".avif", ".jpeg", ".jpg", ".png", ".webp")


class CorruptionDetector(Judge):
    """Calls a picture `corrupted` or `safe`; `raw` has the value of each rule."""

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """It has none: its limits are part of its version."""

    three_classes: ClassVar[bool] = True

    def version(self) -> str:
        """Return the limits."""
        return "rules-2 " + " ".join(f"{name}>{limit:g}" for name, limit in LIMITS.items())

    def judge(self, subject: Subject) -> Judgement:
        """Return the verdict; a file that cannot be decoded is corrupted too."""
        assert subject.answer.image is not None
        try:
            measured = measure_picture(decode_image(subject.answer.image).image_HWC)
        except ImageError as error:
            return Judgement("corrupted", 1.0, {"error": str(error)})
        broken = [name for name, value in measured.items() if value > LIMITS[name]]
        worst = max(measured[name] / LIMITS[name] for name in LIMITS)
        return Judgement("corrupted" if broken else "safe", worst, {**measured, "broken": broken})


def measure_picture(image_HWC: RGBArray) -> dict[str, float]:
    """Return the value of each rule; higher = more corrupted.

    Args:
        image_HWC: Decoded picture, uint8.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        >>> measured = measure_picture(noise)
        >>> [name for name, value in measured.items() if value > LIMITS[name]]
        ['noise']
    """
    full_HWC, image_HWC = image_HWC, _small(image_HWC)
    grey_HW = _grey(image_HWC)
    if float(grey_HW.std()) < _NO_CONTRAST:
        return {"blank": 1.0, "noise": 0.0, "tiled": 0.0, "garbled": 0.0}
    return {
        "blank": _same_colour(image_HWC),
        "noise": 1.0 - min(_alike(full_HWC), _neighbours(grey_HW), _neighbours(_pooled(grey_HW, 8))),
        "tiled": _repetition(grey_HW),
        "garbled": _grid_jump(grey_HW),
    }


def validate(folder: Path | None, *, seed: int = 0) -> JudgeError:
    """Measure the detector's sensitivity and specificity on failures planted into good pictures.

    Args:
        folder: Good pictures; None takes crops of the photographs that scikit-learn ships.
        seed: Of the planted failures.

    Raises:
        ConfigError: The folder has no picture.
    """
    hits = n_positive = passes = n_negative = 0
    rng = np.random.default_rng(seed)
    for good_HWC in _good_pictures(folder):
        n_negative += 1
        passes += not _is_corrupted(good_HWC)
        for failure_HWC in plant(good_HWC, rng).values():
            n_positive += 1
            hits += _is_corrupted(failure_HWC)
    if not n_negative:
        raise ConfigError(f"Expected good pictures to plant failures into, got none in {folder}.")
    return JudgeError(hits, n_positive, passes, n_negative)


def plant(good_HWC: RGBArray, rng: np.random.Generator) -> dict[str, RGBArray]:
    """Return one planted failure of each kind, at the size of a good picture.

    Args:
        good_HWC: A picture of at least 64 px a side.
        rng: Decides where and how.
    """
    height, width = good_HWC.shape[:2]
    tokens_HWC = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    third_HWC = good_HWC[: max(1, height // 3), : max(1, width // 3)]
    flat_HWC = np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), good_HWC.shape)
    return {
        "flat": np.ascontiguousarray(flat_HWC),
        "blank_with_a_speck": _speck(flat_HWC, rng),
        "noise": rng.integers(0, 256, good_HWC.shape, dtype=np.uint8),
        "tokens": np.kron(tokens_HWC, np.ones((16, 16, 1), np.uint8))[:height, :width],
        "tiled": np.tile(third_HWC, (4, 4, 1))[:height, :width],
        "shuffled": _shuffled(good_HWC, 16, rng),
        "drowned": np.clip(good_HWC * 0.2 + rng.normal(100, 60, good_HWC.shape), 0, 255).astype(np.uint8),
    }


def _is_corrupted(image_HWC: RGBArray) -> bool:
    return any(value > LIMITS[name] for name, value in measure_picture(image_HWC).items())


def _small(image_HWC: RGBArray) -> RGBArray:
    image = Image.fromarray(image_HWC)
    if max(image.size) > LONGEST_PX:
        # Whole factors keep a grid of 8 or 16 px a grid; the box filter is what sensors do.
        image = image.reduce(-(-max(image.size) // LONGEST_PX))
    return np.asarray(image)


def _grey(image_HWC: RGBArray) -> FloatArray:
    return np.asarray(Image.fromarray(image_HWC).convert("L"), dtype=np.float64)


def _same_colour(image_HWC: RGBArray) -> float:
    """Return the share of pixels within 3 grey values of the median colour in every channel."""
    near_HW = np.ones(image_HWC.shape[:2], dtype=np.bool_)
    for channel in range(3):
        values_HW = image_HWC[..., channel]
        median = int(np.searchsorted(_shares(values_HW), 0.5))
        near_HW &= np.abs(values_HW.astype(np.int16) - median) <= 3
    return float(near_HW.mean())


def _shares(values_HW: NDArray[Any]) -> FloatArray:
    """Return the share of pixels at or below each of the 256 values."""
    shares: FloatArray = np.cumsum(np.bincount(values_HW.ravel(), minlength=256)) / values_HW.size
    return shares


def _alike(image_HWC: RGBArray) -> float:
    """Return `_neighbours` at full size, where a box filter has not averaged noise away; of evenly spread pixels."""
    step = -(-max(image_HWC.shape[:2]) // LONGEST_PX)
    if step == 1:
        return 1.0  # the same as that of the small picture
    height, width = (size // step * step for size in image_HWC.shape[:2])
    cut_HWC = image_HWC[:height, :width]
    here_HW, right_HW, below_HW = (
        _grey(np.ascontiguousarray(cut_HWC[top::step, left::step])) for top, left in ((0, 0), (0, 1), (1, 0))
    )
    return min(_correlation(here_HW, right_HW), _correlation(here_HW, below_HW))


def _neighbours(grey_HW: FloatArray) -> float:
    """Return the lower of the correlations of horizontal and vertical neighbours; 1 with nothing to compare."""
    return min(_correlation(grey_HW[:, 1:], grey_HW[:, :-1]), _correlation(grey_HW[1:], grey_HW[:-1]))


def _correlation(one: FloatArray, other: FloatArray) -> float:
    if one.size < 16 or one.std() < 1e-6 or other.std() < 1e-6:
        return 1.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _pooled(grey_HW: FloatArray, side_px: int) -> FloatArray:
    height, width = (size // side_px * side_px for size in grey_HW.shape)
    cut = grey_HW[:height, :width].reshape(height // side_px, side_px, width // side_px, side_px)
    pooled: FloatArray = cut.mean(axis=(1, 3))
    return pooled


def _repetition(grey_HW: FloatArray) -> float:
    """Return the highest correlation of the picture's detail with itself, shifted by an eighth of its side or more."""
    # Without the coarse shading, which correlates in every sky.
    detail_HW = grey_HW - ndimage.uniform_filter(grey_HW, 9, mode="nearest")
    # One axis at a time, on the overlap alone: a circular shift would miss tiles that do not fill the side.
    return max(0.0, *(_best_shift(np.ascontiguousarray(lines)) for lines in (detail_HW, detail_HW.T)))


def _best_shift(lines_NL: FloatArray) -> float:
    """Return the highest correlation of lines with themselves over the overlap, of shifts from L / 8 to L / 2.

    The sums over all overlaps at once: those of products are the autocorrelation (Wiener and Khinchin), those of the
    values and their squares are running sums.
    """
    n, length = lines_NL.shape
    shifts = np.arange(max(4, length // 8), length // 2 + 1)
    if not len(shifts):
        return 0.0
    spectrum = np.abs(np.fft.rfft(lines_NL, 2 * length, axis=1)) ** 2
    products = np.fft.irfft(spectrum.sum(axis=0), 2 * length)[shifts]
    sums, squares = lines_NL.sum(axis=0), (lines_NL**2).sum(axis=0)
    n_overlap = n * (length - shifts)

    def moments(values: FloatArray, squared: FloatArray) -> tuple[FloatArray, FloatArray]:
        mean = np.cumsum(values)[length - shifts - 1] / n_overlap
        return mean, np.cumsum(squared)[length - shifts - 1] / n_overlap - mean**2

    (mean_a, variance_a), (mean_b, variance_b) = moments(sums, squares), moments(sums[::-1], squares[::-1])
    spread = np.sqrt(np.maximum(variance_a, 0.0) * np.maximum(variance_b, 0.0))
    alike = (products / n_overlap - mean_a * mean_b) / np.maximum(spread, 1.0)
    return float(alike[spread > 1.0].max(initial=0.0))


def _grid_jump(grey_HW: FloatArray) -> float:
    """Return the jump across the lines of a regular grid, less that elsewhere, in units of unrelated pixels' jump.

    Patches that do not belong together differ like any two pixels of the picture: about 1. The blocks of a compressed
    photograph differ by a few grey values: a large multiple of the jump elsewhere in a smooth picture, but far below 1.
    The median over lines: an edge of a building falls on one line, a broken grid on all.
    """
    shares = _shares(grey_HW.astype(np.uint8))
    # Gini's mean difference: the mean of |a - b| over all pairs of pixels.
    unrelated = float(2.0 * (shares * (1.0 - shares)).sum())
    best = 0.0
    for grid_px in _GRIDS_PX:
        found = []
        for jump in (np.abs(np.diff(grey_HW, axis=0)).mean(axis=1), np.abs(np.diff(grey_HW, axis=1)).mean(axis=0)):
            on_line = np.arange(1, len(jump) + 1) % grid_px == 0
            if on_line.sum() >= 2 and (~on_line).any():
                found.append(float(np.median(jump[on_line]) - np.median(jump[~on_line])) / unrelated)
        if len(found) == 2:
            best = max(best, min(found))
    return best


def _speck(flat_HWC: RGBArray, rng: np.random.Generator) -> RGBArray:
    speck_HWC = np.array(flat_HWC)
    size = max(2, min(flat_HWC.shape[:2]) // 10)
    top, left = (int(rng.integers(0, side - size)) for side in flat_HWC.shape[:2])
    speck_HWC[top : top + size, left : left + size] = 255 - speck_HWC[0, 0]
    return speck_HWC


def _shuffled(good_HWC: RGBArray, side_px: int, rng: np.random.Generator) -> RGBArray:
    rows, columns = good_HWC.shape[0] // side_px, good_HWC.shape[1] // side_px
    cut = good_HWC[: rows * side_px, : columns * side_px].reshape(rows, side_px, columns, side_px, 3).swapaxes(1, 2)
    mixed = cut.reshape(rows * columns, side_px, side_px, 3)[rng.permutation(rows * columns)]
    joined = mixed.reshape(rows, columns, side_px, side_px, 3).swapaxes(1, 2)
    return np.ascontiguousarray(joined.reshape(rows * side_px, columns * side_px, 3))


def _good_pictures(folder: Path | None) -> Iterator[RGBArray]:
    if folder is None:
        from sklearn.datasets import load_sample_images

        for photo_HWC in load_sample_images().images:
            height, width = photo_HWC.shape[:2]
            for top in range(0, height - _CROP_PX + 1, 120):
                for left in range(0, width - _CROP_PX + 1, 120):
                    yield np.ascontiguousarray(photo_HWC[top : top + _CROP_PX, left : left + _CROP_PX])
        return
    if not folder.is_dir():
        raise ConfigError(f"Expected a folder of good pictures, got none at {folder} (corruption.validation).")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES:
            yield decode_file(path).image_HWC
