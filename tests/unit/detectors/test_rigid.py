from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.rigid import Rigid

SETTINGS = {"backbone": "test_vit", "backbone_weights": None, "image_size_px": 32}


def image(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_logit_is_minus_the_cosine_to_the_noisy_copy():
    rigid = Rigid(noise=0.3, seed=5, **SETTINGS)
    vit = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    vit.load_state_dict(rigid.backbone.state_dict())
    noise = np.random.default_rng(5).standard_normal((3, 32, 32)).astype(np.float32)
    mean, std = (np.array(vit.pretrained_cfg[key]).reshape(-1, 1, 1) for key in ("mean", "std"))
    expected = []
    for x in image().numpy():
        x = ((x - mean) / std).astype(np.float32)
        with torch.no_grad():
            clean, noisy = vit(torch.from_numpy(np.stack([x, x + np.float32(0.3) * noise]))).double().numpy()
        expected.append(-clean @ noisy / np.linalg.norm(clean) / np.linalg.norm(noisy))
    np.testing.assert_allclose(rigid(image()).numpy(), expected, rtol=1e-5)


def test_noise_is_that_of_the_seed_and_the_same_for_every_image():
    torch.manual_seed(0)
    first = Rigid(seed=1, **SETTINGS)
    other = Rigid(seed=2, **SETTINGS)
    other.load_state_dict(first.state_dict())
    assert not torch.equal(first(image()), other(image()))
    twice = image(1).repeat(2, 1, 1, 1)
    logit_B = first(twice)
    torch.testing.assert_close(logit_B[0], logit_B[1])


def test_a_backbone_that_noise_does_not_move_says_real():
    quiet, loud = (Rigid(noise=noise, **SETTINGS) for noise in (1e-6, 3.0))
    loud.load_state_dict(quiet.state_dict())
    torch.testing.assert_close(quiet(image()), -torch.ones(3), rtol=0, atol=1e-4)
    assert (loud(image()) > quiet(image())).all()


def test_nothing_learns_and_nothing_but_the_backbone_is_saved():
    rigid = Rigid(**SETTINGS).train()
    assert rigid.trainable_parameters() == []
    assert not any(module.training for module in rigid.children())
    assert {key.split(".")[0] for key in rigid.state_dict()} == {"backbone"}


def test_the_geometry_is_the_papers():
    assert Rigid(**SETTINGS).preprocess.to_json() == [
        {"kind": "resize_exact", "height_px": 32, "width_px": 32, "kernel": "bilinear"}
    ]


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan")])
def test_noise_must_be_above_zero(noise):
    with pytest.raises(ConfigError, match="Expected `noise` to be a finite number above 0"):
        Rigid(noise=noise, **SETTINGS)
