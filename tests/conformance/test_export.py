"""Every registered detector exports, or says why it cannot; a new one is tested by its registry line.

An ONNX translation takes seconds, so it is slow, but for the bundle that other tests share; the fast suite asks the
traced program, from which every format is made, of a detector with Fourier transforms and of one with several views.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from test_detectors import build, photograph

from forgery_det.detectors import Detector, list_detectors
from forgery_det.export.errors import ExportRefusedError
from forgery_det.export.formats import FORMATS
from forgery_det.export.graph import input_form, trace
from forgery_det.export.images import as_input
from forgery_det.export.parity import FP32_TOLERANCE
from forgery_det.export.refusals import check_refusals

REFUSED = {
    "aeroblade": "random stream",
    "aide": "sorts the windows",
    "ensemble": "different geometries",
    "lgrad": "backward pass",
}
"""Tiny instances that cannot be exported, and a word of the reason; whoever mends one takes it out here."""

ONLY_PT2 = {"b_free": "does not translate"}

TEMPERATURE = 1.7
EXPORTED = [name for name in list_detectors() if name not in {**REFUSED, **ONLY_PT2}]


@cache
def built(name: str) -> Detector:
    return build(name)


def inputs(detector: Detector) -> list[np.ndarray]:
    """Batches of one and of three, and where the size is dynamic, of other sizes."""
    batches = [[photograph(seed=0)], [photograph(seed=k) for k in range(3)]]
    if input_form(detector.preprocess).dynamic_size:
        batches += [[photograph(130, 170, seed=4)], [photograph(211, 97, seed=k) for k in range(2)]]
    return [as_input([detector.preprocess(image) for image in images]) for images in batches]


def assert_parity(detector: Detector, answer) -> None:
    for image_BCHW in inputs(detector):
        with torch.no_grad():
            expected_B = detector(torch.from_numpy(image_BCHW)).double().numpy()
        logit_B, score_B = (np.asarray(values, dtype=np.float64) for values in answer(image_BCHW))
        assert logit_B.shape == expected_B.shape
        assert (np.abs(logit_B - expected_B) <= FP32_TOLERANCE * np.maximum(1, np.abs(expected_B))).all()
        np.testing.assert_allclose(score_B, 1 / (1 + np.exp(-logit_B / TEMPERATURE)), atol=1e-6)


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("format_name", FORMATS.names())
def test_a_detector_that_cannot_be_exported_says_why(name: str, format_name: str) -> None:
    with pytest.raises(ExportRefusedError, match=rf"{name} cannot be exported to {format_name}: .*{REFUSED[name]}"):
        check_refusals(built(name), [format_name])


@pytest.mark.parametrize("name", sorted(ONLY_PT2))
def test_a_detector_that_onnx_cannot_hold_says_why(name: str) -> None:
    check_refusals(built(name), ["pt2"])
    for format_name in set(FORMATS.names()) - {"pt2"}:
        with pytest.raises(ExportRefusedError, match=ONLY_PT2[name]):
            check_refusals(built(name), [format_name])


@pytest.mark.parametrize("name", EXPORTED)
def test_the_others_refuse_no_format(name: str) -> None:
    check_refusals(built(name), FORMATS.names())


@pytest.mark.parametrize(
    "name", ["patchcraft", "power_spectrum", *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(ONLY_PT2))]
)
def test_the_traced_program_gives_the_logits_of_the_detector(name: str) -> None:
    detector = build(name)
    module = trace(detector, TEMPERATURE, input_form(detector.preprocess)).module()
    assert_parity(detector, lambda image_BCHW: [values.detach() for values in module(torch.from_numpy(image_BCHW))])


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_gives_the_logits_of_the_detector(name: str, tmp_path: Path) -> None:
    from forgery_det.export.onnx_file import open_onnx, write_onnx

    detector = build(name)
    write_onnx(trace(detector, TEMPERATURE, input_form(detector.preprocess)), tmp_path / "model.onnx")
    assert_parity(detector, open_onnx(tmp_path / "model.onnx", threads=1))
