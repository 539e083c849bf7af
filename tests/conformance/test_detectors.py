"""What every registered detector must do, on its `tiny` instance; a new detector is tested by its registry line."""

from __future__ import annotations

import copy
import inspect
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.detectors import DETECTORS, Detector, create_detector, list_detectors
from forgery_det.detectors.base import FrozenFeatures, to_tensor
from forgery_det.detectors.checkpoint import load_checkpoint, save_checkpoint
from forgery_det.transforms.preprocess import Preprocess

CONFIGS = Path(__file__).parents[2] / "configs" / "detector"
N = 3
SIDE_PX = 96
HALF_RTOL, HALF_ATOL = 0.05, 0.05
"""Largest difference of a logit in bfloat16: as a share of the logits' size and spread, and beside that."""

pytestmark = pytest.mark.parametrize("name", list_detectors())


def build(name: str, **changes: Any) -> Detector:
    """The tiny instance with all that learns drawn anew, so that no output is zero by construction."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = create_detector(name, **(dict(DETECTORS.get(name).tiny) | changes))
        with torch.no_grad():
            for parameter in detector.trainable_parameters():
                draw = torch.randn(parameter.shape)
                if parameter.ndim > 1:
                    # He's gain keeps a signal through rectifiers.
                    parameter.copy_(draw * (2.0 / parameter[0].numel()) ** 0.5)
                else:
                    # Around what it is (gains start at one), and biases to the side on which rectifiers are open.
                    parameter.add_(draw.abs() * 0.1)
    return detector.eval()


def photograph(height: int = SIDE_PX, width: int = SIDE_PX, seed: int = 0) -> np.ndarray:
    """Waves and noise: a picture with content at all scales."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + 4 * k + seed) + y / (9 - 2 * k)) for k in range(3)]
    return np.clip(np.stack(waves, -1) * 90 + 128 + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


def batch_for(detector: Detector, n: int = N) -> torch.Tensor:
    return torch.stack([to_tensor(detector.preprocess(photograph(seed=k))) for k in range(n)])


def test_the_card_says_what_a_reader_needs(name):
    card = DETECTORS.get(name).card
    assert card.name == name
    assert 1990 < card.year < 2100
    assert all((card.paper, card.summary, card.backbone, card.input))
    assert bool(card.official_weights) == bool(card.licence)


def test_the_configuration_builds_the_detector(name):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert config["model"]["detector"] == name
    parameters = inspect.signature(DETECTORS.get(name)).parameters
    assert set(config["model"]["detector_args"]) <= set(parameters)


def test_an_unknown_setting_is_an_error(name):
    with pytest.raises(ConfigError, match=f"Unknown setting 'nonsense' of {name}"):
        create_detector(name, nonsense=1)


@pytest.mark.slow
def test_construction_needs_no_network(name, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("network used")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert isinstance(create_detector(name, **DETECTORS.get(name).tiny), Detector)


def test_one_finite_float32_logit_an_image_in_any_mode(name):
    detector = build(name)
    for mode in (False, True):
        logit_B = detector.train(mode)(batch_for(detector))
        assert logit_B.shape == (N,)
        assert logit_B.dtype == torch.float32
        assert torch.isfinite(logit_B).all()


def test_different_images_get_different_logits(name):
    detector = build(name)
    with torch.no_grad():
        assert len(set(detector(batch_for(detector)).tolist())) == N


def test_evaluation_is_deterministic_and_changes_nothing(name):
    detector = build(name)
    before = copy.deepcopy(detector.state_dict())
    with torch.no_grad():
        first = detector(batch_for(detector))
        torch.rand(3)
        torch.testing.assert_close(detector(batch_for(detector)), first, rtol=0, atol=0)
    torch.testing.assert_close(detector.state_dict(), before, rtol=0, atol=0)


def test_a_batch_of_one_equals_a_batch_of_many(name):
    detector = build(name)
    images = batch_for(detector)
    with torch.no_grad():
        together = detector(images)
        alone = torch.cat([detector(images[k : k + 1]) for k in range(N)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_logit_of_a_decoded_image_is_preprocess_and_forward(name):
    detector = build(name).train()
    with torch.no_grad():
        expected = detector.eval()(batch_for(detector, 1))[0]
    detector.train()
    assert detector.logit(photograph()) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)
    assert detector.training


def test_gradient_reaches_what_learns_and_nothing_else(name):
    detector = build(name).train()
    if not detector.trainable_parameters():
        pytest.skip("nothing in it learns")
    before = copy.deepcopy(detector.state_dict())
    # Weighted, because a plain sum hides what a centred feature does.
    (detector(batch_for(detector)) * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    for key, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().max() > 0, key
        else:
            assert parameter.grad is None, key
    torch.optim.SGD(detector.trainable_parameters(), 0.1).step()
    learning = {key for key, parameter in detector.named_parameters() if parameter.requires_grad}
    for key, value in detector.named_parameters():
        assert torch.equal(value, before[key]) == (key not in learning), key


def test_a_frozen_extractor_gives_the_same_features_while_training(name):
    detector = build(name)
    if not isinstance(detector, FrozenFeatures):
        pytest.skip("its features learn")
    images = batch_for(detector)
    features = detector.features(images)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    torch.testing.assert_close(detector.train().features(images), features, rtol=0, atol=0)
    torch.testing.assert_close(detector.eval().head_logit(features), detector(images), rtol=0, atol=0)
    assert {key.split(".")[0] for key, value in detector.named_parameters() if value.requires_grad} == {"head"}


@pytest.mark.slow
def test_state_dict_round_trip(name):
    detector, other = build(name), create_detector(name, **DETECTORS.get(name).tiny)
    other.load_state_dict(detector.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other(batch_for(detector)), detector(batch_for(detector)), rtol=0, atol=0)


def test_checkpoint_round_trip(name, tmp_path):
    detector = build(name)
    save_checkpoint(tmp_path / "a.ckpt", detector)
    for other in (load_checkpoint(tmp_path / "a.ckpt").detector, create_detector(name, weights=tmp_path / "a.ckpt")):
        assert other.preprocess == detector.preprocess
        assert other.logit(photograph()) == detector.logit(photograph())
        assert [p.requires_grad for p in other.parameters()] == [p.requires_grad for p in detector.parameters()]


@pytest.mark.slow
def test_a_weights_file_with_a_key_too_many_is_refused(name, tmp_path):
    detector = build(name)
    torch.save({"state_dict": dict(detector.state_dict()) | {"surplus": torch.zeros(1)}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"surplus.*a\.pth"):
        create_detector(name, weights=tmp_path / "a.pth", **DETECTORS.get(name).tiny)


def assert_close_in_half(half_B: torch.Tensor, full_B: torch.Tensor) -> None:
    assert half_B.dtype == torch.float32
    size = full_B.abs().max() + full_B.std()
    assert (half_B - full_B).abs().max() <= HALF_RTOL * size + HALF_ATOL


@pytest.mark.slow
def test_half_precision_is_close(name):
    detector = build(name)
    images = batch_for(detector)
    with torch.no_grad():
        full_B = detector(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_close_in_half(detector(images), full_B)
        assert_close_in_half(copy.deepcopy(detector).to(torch.bfloat16)(images), full_B)


@pytest.mark.gpu
def test_the_gpu_gives_the_same_logits(name):
    detector = build(name)
    images = batch_for(detector)
    with torch.no_grad():
        expected = detector(images)
        moved = detector.to("cuda")
        torch.testing.assert_close(moved(images.to("cuda")).cpu(), expected, rtol=1e-2, atol=1e-3)
    assert moved.logit(photograph()) == pytest.approx(float(expected[0]), rel=1e-2, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 200), (200, 1), (5, 7), (63, 65), (2, 8000), (8000, 3)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_images_of_any_size_are_scored(name, size):
    assert np.isfinite(build(name).logit(photograph(*size)))


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, 127, 255])
def test_flat_grey_images_are_scored(name, value):
    assert np.isfinite(build(name).logit(np.full((80, 120, 3), value, np.uint8)))


def test_the_geometry_survives_json(name):
    preprocess = build(name).preprocess
    assert Preprocess.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess
    views = preprocess(photograph())
    assert views.dtype == np.uint8
    assert views.ndim in (3, 4)
