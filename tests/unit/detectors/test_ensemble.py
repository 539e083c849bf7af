from __future__ import annotations

import numpy as np
import pytest
import torch

from forgery_det.core.errors import ConfigError, UnknownNameError
from forgery_det.detectors import create_detector, load_checkpoint
from forgery_det.detectors.base import to_tensor
from forgery_det.detectors.checkpoint import save_checkpoint
from forgery_det.detectors.combination import Combination, fit_combination
from forgery_det.detectors.ensemble import Ensemble, ensemble_of
from forgery_det.detectors.frozen_probe import FrozenProbe

BACKBONE = {"backbone": "test_resnet", "backbone_weights": None}
COMBINATION = Combination((0.5, -0.9), (2.0, 0.1), (1.5, 0.25), -0.75)


def classifier(side: int = 64):
    return create_detector("timm_classifier", **BACKBONE, image_size_px=side)


def rigid(side: int = 32):
    return create_detector("rigid", **BACKBONE, image_size_px=side)


def picture(height: int = 70, width: int = 90, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_logit_is_the_combination_of_the_members_alone():
    members = [classifier(), rigid()]
    ensemble = ensemble_of(members, COMBINATION)
    for image in (picture(), picture(1, 300), picture(seed=1)):
        alone = [member.logit(image) for member in members]
        assert ensemble.logit(image) == pytest.approx(COMBINATION.apply([alone])[0], rel=1e-4, abs=1e-5)
    batch = torch.stack([to_tensor(picture(seed=seed)) for seed in range(3)])
    expected = [[member.logit(picture(seed=seed)) for member in members] for seed in range(3)]
    np.testing.assert_allclose(ensemble.member_logits(batch).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_shared_geometry_is_the_ensembles():
    first, second = classifier(), classifier()
    ensemble = ensemble_of([first, second])
    assert ensemble.preprocess == first.preprocess
    assert ensemble.logit(picture()) == pytest.approx((first.logit(picture()) + second.logit(picture())) / 2, abs=1e-5)
    assert ensemble_of([first, rigid()]).preprocess.to_json() == []


def test_a_checkpoint_holds_members_and_weights(tmp_path):
    ensemble = ensemble_of([classifier(), rigid()], COMBINATION)
    save_checkpoint(tmp_path / "a.ckpt", ensemble, temperature=1.5)
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    assert loaded.detector.logit(picture()) == ensemble.logit(picture())
    assert loaded.facts.temperature == 1.5
    torch.testing.assert_close(loaded.detector.weight_M, torch.tensor([1.5, 0.25]))


def test_an_ensemble_may_be_a_member():
    inner = ensemble_of([classifier(), rigid()], COMBINATION)
    assert ensemble_of([inner]).logit(picture()) == pytest.approx(inner.logit(picture()), abs=1e-6)


def test_one_member_makes_log_odds_of_a_similarity():
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    similarity = -0.97 + 0.01 * label + 0.01 * rng.standard_normal(200)
    fit = fit_combination(label, similarity[:, None])
    assert np.mean((fit.apply(similarity[:, None]) > 0) == label) > 0.6
    member = rigid()
    ensemble = ensemble_of([member], fit)
    assert ensemble.logit(picture()) == pytest.approx(fit.apply([[member.logit(picture())]])[0], abs=1e-3)


def test_members_are_copied_and_nothing_learns():
    member = classifier()
    before = {key: value.clone() for key, value in member.state_dict().items()}
    ensemble = ensemble_of([member]).train()
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.add_(1)
    torch.testing.assert_close(member.state_dict(), before, rtol=0, atol=0)
    assert any(parameter.requires_grad for parameter in member.parameters())
    assert ensemble.trainable_parameters() == []
    assert not any(module.training for module in ensemble.members.modules())


def test_members_from_settings_start_as_the_plain_mean():
    ensemble = create_detector(
        "ensemble", members=[{"detector": "rigid", "args": dict(BACKBONE, image_size_px=32)}] * 2
    )
    assert ensemble.weight_M.tolist() == [0.5, 0.5]
    assert ensemble.logit(picture()) == pytest.approx(
        float(ensemble.member_logits(to_tensor(ensemble.preprocess(picture()))[None]).mean())
    )


def test_without_backbone_weights_no_member_fetches_any(monkeypatch):
    monkeypatch.setattr("timm.create_model", _offline(monkeypatch))
    Ensemble([{"detector": "timm_classifier", "args": dict(BACKBONE, backbone_weights="timm")}], backbone_weights=None)


def _offline(monkeypatch):
    import timm

    create = timm.create_model

    def refuse(name, pretrained=False, **options):
        assert not pretrained
        return create(name, pretrained=pretrained, **options)

    return refuse


def test_wrong_members_are_refused():
    with pytest.raises(ConfigError, match="Expected at least one member of the ensemble, got none"):
        Ensemble(())
    with pytest.raises(ConfigError, match=r"Expected a member as a dictionary with `detector` and `args`, got 'rigid'"):
        Ensemble(("rigid",))
    with pytest.raises(ConfigError, match="'weights'"):
        Ensemble(({"detector": "rigid", "weights": "a.pth"},))
    with pytest.raises(UnknownNameError, match="rigid"):
        Ensemble(({"detector": "rigit"},))
    with pytest.raises(ConfigError, match="Unknown setting 'nois' of rigid"):
        Ensemble(({"detector": "rigid", "args": {"nois": 1}},))
    with pytest.raises(ConfigError, match="Expected `backbone_weights` to be 'members' or None, got 'timm'"):
        Ensemble(Ensemble.tiny["members"], backbone_weights="timm")
    with pytest.raises(ConfigError, match="Expected members built by create_detector, got a FrozenProbe"):
        ensemble_of([FrozenProbe(**BACKBONE, image_size_px=64)])
    with pytest.raises(ConfigError, match="Expected a combination of 1 members, got one of 2"):
        ensemble_of([rigid()], COMBINATION)
    moved = rigid()
    moved.preprocess = classifier().preprocess
    with pytest.raises(ConfigError, match="Expected rigid with the geometry that its settings give"):
        ensemble_of([moved])
