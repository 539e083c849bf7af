"""The graph of a bundle: `image -> logit, score`, with normalisation, views and temperature inside.

    logit = detector(image)        score = 1 / (1 + exp(-logit / temperature))

`trace` captures it once with `torch.export`; every format is made from that one program. The batch is dynamic. Height,
width and the number of views are dynamic exactly where the detector's geometry lets them vary from image to image: a
detector that always sees 224 x 224 gains nothing from a graph of any size, and runtimes plan memory for a fixed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from forgery_det.detectors.base import Detector
from forgery_det.export.errors import ExportError
from forgery_det.export.images import as_input
from forgery_det.transforms.preprocess import Preprocess

INPUT_NAME = "image"
OUTPUT_NAMES = ("logit", "score")

_PROBES_PX = ((480, 640), (620, 410), (1100, 1500), (150, 130))
"""Sizes of images that tell which axes of the input vary."""

_TRACED_BATCH = 2


@dataclass(frozen=True, slots=True)
class InputForm:
    """What the graph takes, the batch apart; None is an axis that varies.

    Args:
        views: Views of an image; None when there is no such axis or it varies.
        height_px: Of a view.
        width_px: Of a view.
        has_views: Whether there is an axis of views.
    """

    views: int | None
    height_px: int | None
    width_px: int | None
    has_views: bool

    @property
    def dynamic_size(self) -> bool:
        """Whether height or width varies."""
        return self.height_px is None or self.width_px is None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """All axes with the batch, None where they vary.

        Example:
            >>> InputForm(None, 224, 224, has_views=False).shape
            (None, 3, 224, 224)
        """
        views = (self.views,) if self.has_views else ()
        return (None, *views, 3, self.height_px, self.width_px)


class BundleGraph(nn.Module):
    """A detector and its temperature.

    Args:
        detector: In evaluation mode.
        temperature: Above 0; None counts as 1.
    """

    def __init__(self, detector: Detector, temperature: float | None) -> None:
        super().__init__()
        self.detector = detector
        self.temperature = 1.0 if temperature is None else float(temperature)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return `logit_B` and `score_B`."""
        logit_B = self.detector(image).float()
        return logit_B, torch.sigmoid(logit_B / self.temperature)


def input_form(preprocess: Preprocess) -> InputForm:
    """Return what a geometry gives for images of several sizes.

    Raises:
        ExportError: It gives views for some sizes and none for others.
    """
    rng = np.random.default_rng(0)
    shapes = [preprocess(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).shape for size in _PROBES_PX]
    if len({len(shape) for shape in shapes}) != 1:
        raise ExportError(f"Expected a geometry with a fixed number of axes, got the shapes {shapes}.")
    *views, height, width, _ = (axis[0] if len(set(axis)) == 1 else None for axis in zip(*shapes, strict=True))
    return InputForm(views[0] if views else None, height, width, bool(views))


def trace(detector: Detector, temperature: float | None, form: InputForm) -> ExportedProgram:
    """Capture the graph of a detector.

    Args:
        detector: On the CPU.
        temperature: Goes into the graph.
        form: From `input_form`.

    Raises:
        ExportError: torch.export cannot capture the detector; the text has torch's first line.
    """
    graph = BundleGraph(detector.eval().requires_grad_(False), temperature).eval()
    try:
        with torch.no_grad():
            return torch.export.export(graph, (example_input(detector.preprocess),), dynamic_shapes=(_dims(form),))
    except Exception as error:  # torch.export raises errors of a dozen unrelated classes
        raise ExportError(
            f"Expected a detector that torch.export can capture, got {type(error).__name__} of "
            f"{detector.card.name}: {first_line(error)}"
        ) from error


def example_input(preprocess: Preprocess, n: int = _TRACED_BATCH, size_px: tuple[int, int] = (300, 410)) -> Tensor:
    """Return `image_BCHW` of noise that went through a geometry; equal calls give equal bytes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *size_px, 3), dtype=np.uint8)
    return torch.from_numpy(as_input([preprocess(image_HWC) for image_HWC in images]))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something, without terminal colours."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line), "no text")


def _dims(form: InputForm) -> dict[int, Any]:
    sides: Sequence[int | None] = form.shape
    names = ("batch", *(("views",) if form.has_views else ()), "channels", "height", "width")
    return {
        axis: Dim(name, min=1) if name == "batch" else Dim.DYNAMIC
        for axis, (name, size) in enumerate(zip(names, sides, strict=True))
        if size is None
    }
