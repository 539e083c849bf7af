"""The rules of parity on made-up answers, and graphs whose answer would depend on luck."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from forgery_det.export.errors import ExportError, ParityError
from forgery_det.export.onnx_file import _refuse_scattered_sums
from forgery_det.export.parity import Answers, check_parity, compare

IDS = tuple(f"{k}.png" for k in range(40))
LABEL_N = np.repeat([0, 1], 20)
LOGIT_N = np.r_[np.linspace(-9, 1, 20), np.linspace(-1, 9, 20)]


def answers(logit_N: np.ndarray) -> Answers:
    return Answers(IDS, IDS, LABEL_N, logit_N, 1 / (1 + np.exp(-logit_N)))


def row(logit_N: np.ndarray, precision: str = "fp32"):
    return compare("x", precision, answers(LOGIT_N), answers(logit_N), {"balanced": 0.0})


def test_fp32_is_judged_relative_to_large_logits_only() -> None:
    assert row(LOGIT_N * (1 + 9e-5)).holds
    assert row(LOGIT_N + 9e-5).holds
    assert not row(LOGIT_N + 2e-4).holds


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_logit_that_is_no_number_breaks_every_rule(precision: str) -> None:
    assert not row(np.where(np.arange(40) == 3, np.nan, LOGIT_N), precision).holds


def test_int8_keeps_its_auroc_and_its_decisions() -> None:
    assert row(LOGIT_N + 0.01, "int8").holds
    assert not row(-LOGIT_N, "int8").holds
    moved = row(LOGIT_N + 3.0, "int8")
    assert moved.auroc_loss == 0
    assert moved.flips["balanced"] > moved.flips_allowed == 2
    with pytest.raises(ParityError, match=r"at most 2 decisions at an operating point, got 0\.00 points .*0\.png: det"):
        check_parity([moved])


def test_sums_into_scattered_places_are_refused() -> None:
    def graph(**attributes: str) -> onnx.ModelProto:
        node = helper.make_node("ScatterND", ["data", "indices", "updates"], ["out"], **attributes)
        kinds = {"data": TensorProto.FLOAT, "indices": TensorProto.INT64, "updates": TensorProto.FLOAT}
        inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
        output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
        return helper.make_model(helper.make_graph([node], "g", inputs, [output]))

    _refuse_scattered_sums(graph())
    _refuse_scattered_sums(graph(reduction="none"))
    with pytest.raises(ExportError, match="ScatterND with reduction add: onnxruntime adds in several threads"):
        _refuse_scattered_sums(graph(reduction="add"))
