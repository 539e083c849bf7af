"""Which part of an image drives the logit: cover one part after the other and see how the logit moves.

    change(cell) = logit(image) - logit(image with the cell filled by its mean colour)        (Zeiler and Fergus 2014)

Positive: what lies there made the logit higher, towards "generated". The image is covered before preprocessing, so the
map lies on the picture as people see it, and any detector will do: convolutions or attention, one view or several,
with gradients or without. It costs one forward pass a cell. What it cannot show: traces that every part carries alone
(covering one cell changes little), and the border of the cover is itself an edge that some detectors may notice.

The covering is captum's `Occlusion` (Kokhlikyan et al. 2020, arXiv 2009.07896; extra `explain`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.base import Detector, to_tensor
from forgery_det.transforms.preprocess import ImageArray, resize

CELLS = 8
"""Cells along each side; 64 forward passes an image."""

COPIES_PX = 4_000_000
"""Pixels of covered copies held at once."""

TOWARDS_GENERATED, TOWARDS_REAL = (216, 99, 27), (42, 127, 191)
"""Colours of an overlay, those of the report's figures."""

_DEEPEST = 0.75
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class HeatOverlay:
    """A heat map on its picture, for a gallery.

    Args:
        picture_HWC: uint8 RGB: greyed picture, orange where it drives the logit up, blue where it drives it down.
        strongest: The largest change of the logit by covering one cell, with its sign.
    """

    picture_HWC: ImageArray
    strongest: float


def occlusion_map(detector: Detector, image_HWC: ImageArray, *, cells: int = CELLS) -> NDArray[np.float64]:
    """Return how much the logit drops when the part around each pixel is covered, [H, W], in units of the logit.

    Args:
        detector: Put into evaluation mode.
        image_HWC: Decoded image, uint8 RGB of any size.
        cells: Cells along each side.

    Raises:
        ConfigError: captum is not installed, or `cells` is below 1.
    """
    if cells < 1:
        raise ConfigError(f"Expected `cells` of at least 1, got {cells}.")
    height, width = image_HWC.shape[:2]
    image_BCHW = torch.from_numpy(np.ascontiguousarray(image_HWC)).permute(2, 0, 1)[None].double()
    window = 3, -(-height // cells), -(-width // cells)
    mean_BCHW = image_BCHW.mean(dim=(2, 3), keepdim=True).expand_as(image_BCHW)
    detector.eval()
    found_BCHW: Tensor = _occlusion()(lambda copies_BCHW: _logits(detector, copies_BCHW)).attribute(
        image_BCHW,
        sliding_window_shapes=window,
        strides=window,
        baselines=mean_BCHW,
        perturbations_per_eval=int(np.clip(COPIES_PX // (height * width), 1, 16)),
    )
    # The three colours are covered together and share one value.
    return np.asarray(found_BCHW[0, 0].cpu().numpy(), dtype=np.float64)


def heatmap(detector: Detector, image_HWC: ImageArray, *, cells: int = CELLS) -> NDArray[np.float64]:
    """Return how much each part drives the logit, up or down, [H, W] in [0, 1]; 1 is the strongest part.

    All zeros when no part alone moves the logit. Arguments and errors as in `occlusion_map`.
    """
    size_HW = np.abs(occlusion_map(detector, image_HWC, cells=cells))
    largest = float(size_HW.max())
    return size_HW / largest if largest > _NOTHING else np.zeros_like(size_HW)


def overlay(detector: Detector, image_HWC: ImageArray, width_px: int, height_px: int) -> HeatOverlay:
    """Return the heat map drawn over the picture, resized to `height_px` x `width_px`.

    Args:
        detector: Whose logit.
        image_HWC: Decoded image, uint8 RGB.
        width_px: Of the overlay.
        height_px: Of the overlay.

    Raises:
        ConfigError: captum is not installed.
    """
    change_HW = occlusion_map(detector, image_HWC)
    strongest = float(change_HW.flat[int(np.abs(change_HW).argmax())])
    share_HW = np.clip(change_HW / abs(strongest), -1.0, 1.0) if abs(strongest) > _NOTHING else np.zeros_like(change_HW)
    signed = np.repeat(np.rint(127.5 + 127.5 * share_HW).astype(np.uint8)[:, :, None], 3, axis=2)
    share_HW = resize(signed, width_px, height_px, "bilinear")[:, :, 0].astype(np.float64) / 127.5 - 1.0
    grey_HW = resize(image_HWC, width_px, height_px, "lanczos").astype(np.float64).mean(axis=2)
    colour_HWC = np.where(share_HW[:, :, None] > 0, np.array(TOWARDS_GENERATED), np.array(TOWARDS_REAL))
    depth_HW1 = _DEEPEST * np.abs(share_HW)[:, :, None]
    mixed_HWC = (1.0 - depth_HW1) * grey_HW[:, :, None] + depth_HW1 * colour_HWC
    return HeatOverlay(np.clip(np.rint(mixed_HWC), 0, 255).astype(np.uint8), strongest)


def check_installed() -> None:
    """Raise ConfigError unless captum is there: better before a long scoring than after it."""
    _occlusion()


def _logits(detector: Detector, copies_BCHW: Tensor) -> Tensor:
    copies_BHWC = copies_BCHW.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).numpy()
    views = torch.stack([to_tensor(detector.preprocess(copy_HWC)) for copy_HWC in copies_BHWC])
    with torch.inference_mode():
        logit_B: Tensor = detector(views.to(detector.device)).double().cpu()
    return logit_B.clone()


def _occlusion() -> type:
    try:
        from captum.attr import Occlusion  # here: an optional package that takes a second to import
    except ImportError as error:
        raise ConfigError(
            "Expected the package captum for heat maps, got none installed: pip install 'forgery-det[explain]'."
        ) from error
    occlusion: type = Occlusion
    return occlusion
