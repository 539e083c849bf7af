from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from sklearn.preprocessing import StandardScaler

from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.detectors import create_detector
from forgery_det.detectors.attention_probe import AttentionPool, AttentionProbe
from forgery_det.detectors.frozen_probe import ScaledLinear

SETTINGS = {"backbone_weights": None, "image_size_px": 64}


def image(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def tokens(n: int = 5, n_tokens: int = 7, width: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, n_tokens, width, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def drawn(pool: AttentionPool, seed: int = 1) -> AttentionPool:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*pool.parameters(), pool.mean_D):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        pool.spread_D.copy_(torch.rand(pool.spread_D.shape, generator=generator) + 0.5)
    return pool


def test_the_logit_is_the_equation_of_the_module():
    pool, feature = drawn(AttentionPool(6, 3, standardise=True)), tokens()
    mean, spread, query = (tensor.detach().double().numpy() for tensor in (pool.mean_D, pool.spread_D, pool.query_KD))
    weight = pool.linear.weight.detach().double().numpy().reshape(3, 6)
    expected = []
    for x in feature.double().numpy():
        t = (x - mean) / spread
        z = float(pool.linear.bias.detach())
        for q, w in zip(query, weight, strict=True):
            a = np.exp(t @ q / np.sqrt(6))
            z += w @ (a[:, None] * t).sum(0) / a.sum()
        expected.append(z)
    np.testing.assert_allclose(pool(feature)[:, 0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_without_a_preference_it_is_the_linear_probe_on_the_mean():
    pool, linear = drawn(AttentionPool(6, 1, standardise=True)), ScaledLinear(6, standardise=True)
    state = {key: value for key, value in pool.state_dict().items() if key != "query_KD"}
    linear.load_state_dict(state)
    with torch.no_grad():
        pool.query_KD.zero_()
    torch.testing.assert_close(pool(tokens()), linear(tokens().mean(dim=1)))


def test_the_order_of_tokens_is_no_matter_and_a_strong_query_reads_one_token():
    pool, feature = drawn(AttentionPool(6, 2, standardise=False)), tokens()
    torch.testing.assert_close(pool(feature.flip(1)), pool(feature))
    with torch.no_grad():
        pool.query_KD.mul_(1e4)
    assert (pool.attention(pool.scaled(feature)).max(dim=-1).values > 0.999).all()


def test_features_are_the_normed_patch_tokens_without_the_class_token():
    probe = AttentionProbe("test_vit", **SETTINGS)
    vit = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    vit.load_state_dict(probe.backbone.state_dict())
    with torch.no_grad():
        expected = vit.forward_features(probe.normalise(image()))[:, vit.num_prefix_tokens :]
    torch.testing.assert_close(probe.features(image()), expected)
    attention_BKN = probe.attention(image())
    assert attention_BKN.shape == (2, 4, expected.shape[1])
    torch.testing.assert_close(attention_BKN.sum(dim=-1), torch.ones(2, 4))


def test_positions_of_a_convolutional_stage_are_tokens():
    probe = AttentionProbe("test_resnet", block=-2, **SETTINGS)
    expected = probe.backbone.forward_intermediates(
        probe.normalise(image()), indices=[3], intermediates_only=True, stop_early=True
    )[0]
    feature_BND = probe.features(image())
    assert feature_BND.shape == (2, expected.shape[2] * expected.shape[3], expected.shape[1])
    torch.testing.assert_close(feature_BND[0, 1], expected[0, :, 0, 1])


def test_the_scaling_is_that_of_scikit_learn_over_all_tokens():
    feature = tokens(130)
    feature[..., 2] = 4.0
    pool = AttentionPool(6, 2, standardise=True)
    pool.fit(feature)
    scaler = StandardScaler().fit(feature.flatten(0, 1).double().numpy())
    np.testing.assert_allclose(pool.mean_D.numpy(), scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(pool.spread_D.numpy(), scaler.scale_, rtol=1e-5)
    plain = AttentionPool(6, 2, standardise=False)
    plain.fit(feature)
    assert plain.mean_D.abs().max() == 0


def test_queries_start_apart_and_the_same_in_every_process():
    first, second = AttentionPool(8, 3, standardise=True), AttentionPool(8, 3, standardise=True)
    assert torch.equal(first.query_KD, second.query_KD)
    assert len({float(row.sum()) for row in first.query_KD.detach()}) == 3


def test_it_finds_the_one_token_that_matters():
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(400, 16, 8, generator=generator)
    label = (torch.arange(400) % 2).float()
    place = torch.randint(16, (400,), generator=generator)
    feature[torch.arange(400), place, 0] += 6 * label
    pool = AttentionPool(8, 2, standardise=True)
    pool.fit(feature[:300])
    optimizer = torch.optim.Adam(pool.parameters(), 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(pool(feature[:300])[:, 0], label[:300]).backward()
        optimizer.step()
    right = (pool(feature[300:])[:, 0] > 0) == label[300:].bool()
    # A linear probe on the mean of the tokens reaches 0.77 here: the shift is 6 / 16, the spread of a mean 1 / 4.
    assert right.float().mean() > 0.9
    generated = label[300:].bool()
    attended = pool.attention(pool.scaled(feature[300:])).mean(dim=1).argmax(dim=-1)
    assert (attended == place[300:])[generated].float().mean() > 0.8


def test_a_file_of_the_head_alone_is_loaded(tmp_path):
    probe = AttentionProbe("test_vit", **SETTINGS)
    drawn(probe.head)
    head = {key: value for key, value in probe.state_dict().items() if key.startswith("head.")}
    torch.save(head, tmp_path / "head.pth")
    loaded = create_detector("attention_probe", weights=tmp_path / "head.pth", backbone="test_vit", **SETTINGS)
    torch.testing.assert_close(loaded.head.state_dict(), probe.head.state_dict(), rtol=0, atol=0)
    torch.save({key: value for key, value in head.items() if "query" not in key}, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match=r"missing: query_KD.*less\.pth"):
        create_detector("attention_probe", weights=tmp_path / "less.pth", backbone="test_vit", **SETTINGS)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="Expected `n_queries` of at least 1, got 0"):
        AttentionProbe("test_vit", n_queries=0, **SETTINGS)
    with pytest.raises(ConfigError, match="Expected `blocks`"):
        AttentionProbe("test_vit", block=99, **SETTINGS)
    with pytest.raises(ConfigError, match=r"Expected features of shape \(at least 1, tokens, 6\), got \(5, 6\)"):
        AttentionPool(6, 2, standardise=True).fit(torch.zeros(5, 6))
