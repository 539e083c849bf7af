from __future__ import annotations

import socket

import numpy as np
import pytest
import timm
import torch
from sklearn.preprocessing import StandardScaler

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.frozen_probe import FrozenProbe, ScaledLinear, choose_blocks

SETTINGS = {"backbone_weights": None, "image_size_px": 64}


def image(n: int = 2, side: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_features_are_the_means_of_timms_feature_maps(name):
    probe = FrozenProbe(name, **SETTINGS)
    reference = timm.create_model(name, features_only=True).eval()
    own = probe.backbone.state_dict()
    # features_only renames "stages.0" to "stages_0" and the like; values come in the same order of the same names.
    theirs = {key: own[key if key in own else _plain_name(key, own)] for key in reference.state_dict()}
    reference.load_state_dict(theirs)
    with torch.no_grad():
        maps = reference(probe.normalise(image()))
    torch.testing.assert_close(probe.features(image()), torch.cat([m.mean(dim=(2, 3)) for m in maps], dim=1))


def _plain_name(key: str, own: dict[str, torch.Tensor]) -> str:
    (match,) = [name for name in own if name.replace(".", "_") == key.replace(".", "_")]
    return match


def test_transformer_blocks_are_normed_and_averaged_over_patches():
    probe = FrozenProbe("test_vit", blocks=(1, -1), **SETTINGS)
    vit = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    vit.load_state_dict(probe.backbone.state_dict())
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(probe.normalise(image()))))
    outputs = []
    with torch.no_grad():
        for block in vit.blocks:
            tokens = block(tokens)
            outputs.append(vit.norm(tokens))
    patches = torch.cat([outputs[k][:, 1:].mean(dim=1) for k in (1, 5)], dim=1)
    torch.testing.assert_close(probe.features(image()), patches)
    probe = FrozenProbe("test_vit", blocks=(1, -1), pool="cls", **SETTINGS)
    probe.backbone.load_state_dict(vit.state_dict())
    torch.testing.assert_close(probe.features(image()), torch.cat([outputs[k][:, 0] for k in (1, 5)], dim=1))


def test_only_the_asked_blocks_are_kept():
    few, many = (FrozenProbe("test_vit", blocks=blocks, **SETTINGS) for blocks in ((0,), (0, 5)))
    assert sum(p.numel() for p in few.backbone.parameters()) < sum(p.numel() for p in many.backbone.parameters()) / 2
    assert few.head.linear.in_features * 2 == many.head.linear.in_features


def test_every_backbone_keeps_its_input_size_unless_told():
    assert FrozenProbe("test_vit", backbone_weights=None).preprocess.to_json()[1]["height_px"] == 160
    assert FrozenProbe("test_vit", **SETTINGS).features(image()).shape == (2, 5 * 64)


def test_the_default_takes_all_stages_of_the_packaged_backbone_without_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("network used")

    monkeypatch.setattr(socket, "socket", refuse)
    probe = FrozenProbe()
    assert probe.blocks == (0, 1, 2, 3, 4)
    assert probe.head.linear.in_features == 512
    assert [entry["kind"] for entry in probe.preprocess.to_json()] == ["resize_short", "center_crop"]
    assert probe.preprocess.to_json()[0] == {"kind": "resize_short", "size_px": 224, "kernel": "bicubic"}


@pytest.mark.parametrize(
    ("n_blocks", "expected"),
    [(1, (0,)), (4, (0, 1, 2, 3)), (5, (0, 1, 2, 3, 4)), (12, (1, 4, 6, 9, 11)), (24, (4, 9, 13, 18, 23))],
)
def test_default_blocks_are_spread_evenly_and_end_with_the_last(n_blocks, expected):
    assert choose_blocks(None, n_blocks) == expected


@pytest.mark.parametrize("blocks", [(), (12,), (-13,), (0, 0), (11, -1)])
def test_impossible_blocks_are_explained(blocks):
    with pytest.raises(ConfigError, match=r"Expected `blocks` to be different numbers in \[-12, 11\], got"):
        choose_blocks(blocks, 12)


def test_pool_is_checked():
    with pytest.raises(ConfigError, match="Expected a backbone with a class token for pool='cls', got test_resnet"):
        FrozenProbe("test_resnet", pool="cls", **SETTINGS)
    with pytest.raises(ConfigError, match="Unknown pool 'men': did you mean 'mean'"):
        FrozenProbe("test_resnet", pool="men", **SETTINGS)


def test_an_untrained_head_says_nothing():
    assert FrozenProbe("test_resnet", **SETTINGS)(image()).tolist() == [0.0, 0.0]


def test_scaling_equals_scikit_learn():
    feature = np.random.default_rng(0).normal(3, [0.1, 5, 50], (40, 3)).astype(np.float32)
    head = ScaledLinear(3, standardise=True)
    head.fit(torch.from_numpy(feature))
    torch.nn.init.eye_(head.linear.weight)
    expected = StandardScaler().fit_transform(feature)[:, 0]
    with torch.no_grad():
        np.testing.assert_allclose(head(torch.from_numpy(feature))[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_feature_that_never_varies_does_no_harm():
    head = ScaledLinear(2, standardise=True)
    head.fit(torch.tensor([[1.0, 7.0], [2.0, 7.0]]))
    assert head.spread_D.tolist() == [0.5, 1.0]
    assert torch.isfinite(head(torch.tensor([[1.0, 8.0]]))).all()


def test_scaling_can_be_left_out():
    head = ScaledLinear(2, standardise=False)
    head.fit(torch.rand(5, 2))
    assert (head.mean_D.tolist(), head.spread_D.tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize("feature", [torch.rand(4, 3), torch.rand(0, 2), torch.rand(2)])
def test_wrong_features_are_explained(feature):
    with pytest.raises(ConfigError, match=r"Expected features of shape \(at least 1, 2\), got"):
        ScaledLinear(2, standardise=True).fit(feature)


def test_head_on_stored_features_equals_the_whole():
    probe = FrozenProbe("test_resnet", **SETTINGS)
    torch.nn.init.normal_(probe.head.linear.weight)
    probe.fit_feature_scaling(probe.features(image(6)))
    torch.testing.assert_close(probe.head_logit(probe.features(image(6))), probe(image(6)), rtol=0, atol=0)
    assert probe(image(6)).std() > 0


def test_batch_statistics_stay_frozen_while_training():
    probe = FrozenProbe("test_resnet", **SETTINGS).train()
    before = {key: value.clone() for key, value in probe.backbone.state_dict().items()}
    probe(image()).sum().backward()
    assert probe.training
    assert probe.head.training
    assert not any(module.training for module in probe.backbone.modules())
    torch.testing.assert_close(probe.backbone.state_dict(), before, rtol=0, atol=0)
    assert not probe.eval().training
