"""A detector that looks at one half has its heat there; the numbers are those of covering by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.detectors import create_detector
from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.evaluation import evaluate
from forgery_det.evaluation.heatmaps import heatmap, occlusion_map, overlay
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, ResizeExact


class HalfRed(Detector):
    """Logit = 12 (mean red of the left half - 1/2); `sign` turns it round; counts forward passes."""

    card = DetectorCard("half_red", "none", 2026, "how red the left half is")

    def __init__(self, sign: float = 1.0, preprocess: Preprocess = Preprocess()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.preprocess, self.sign, self.n_seen = preprocess, sign, 0

    def forward(self, image_BCHW: Tensor) -> Tensor:
        self.n_seen += len(image_BCHW)
        half = image_BCHW[..., 0, :, : image_BCHW.shape[-1] // 2]
        return self.sign * 12 * (half.flatten(1).mean(dim=1) - 0.5)


class Several(HalfRed):
    """The same with two views of an image, of which it takes the mean."""

    def __init__(self) -> None:
        super().__init__()
        single = ResizeExact(16, 16, "box")
        self.preprocess = lambda image: np.stack([single(image), single(image)])  # type: ignore[assignment]


@pytest.fixture
def image() -> np.ndarray:
    """A red spot in the upper left cell of an otherwise grey and noisy image."""
    pixels = np.random.default_rng(0).integers(90, 110, (64, 96, 3)).astype(np.uint8)
    pixels[0:8, 0:12] = (250, 0, 0)
    return pixels


@pytest.mark.parametrize("preprocess", [Preprocess(), Preprocess((ResizeExact(32, 32, "box"),))])
def test_the_heat_of_a_half_blind_detector_lies_in_its_half(image: np.ndarray, preprocess: Preprocess) -> None:
    heat_HW = heatmap(HalfRed(preprocess=preprocess), image)
    assert heat_HW.shape == (64, 96)
    assert heat_HW.max() == 1.0
    assert heat_HW.min() >= 0.0
    assert np.all(heat_HW[:8, :12] == 1.0)
    assert heat_HW[:, :48].mean() > 0.01
    assert np.all(heat_HW[:, 48:] == 0.0)


def test_changes_are_those_of_covering_by_hand(image: np.ndarray) -> None:
    detector = HalfRed()
    found_HW = occlusion_map(detector, image)
    covered = image.copy()
    covered[8:16, 12:24] = np.rint(image.reshape(-1, 3).mean(axis=0)).astype(np.uint8)
    expected = detector.logit(image) - detector.logit(covered)
    np.testing.assert_allclose(found_HW[8:16, 12:24], expected, atol=1e-6)
    assert found_HW[0, 0] == pytest.approx(found_HW.max())


def test_a_part_outside_the_crop_has_no_heat(image: np.ndarray) -> None:
    heat_HW = heatmap(HalfRed(preprocess=Preprocess((CenterCrop(32, 48),))), image)
    assert np.all(heat_HW[:16] == 0.0)
    assert heat_HW[16:48, 24:48].max() == 1.0


def test_several_views_and_sizes_that_do_not_divide(image: np.ndarray) -> None:
    assert np.all(heatmap(Several(), image)[:, 48:] == 0.0)
    assert heatmap(HalfRed(), image[:61, :37]).shape == (61, 37)
    assert heatmap(HalfRed(), image[:3, :5]).shape == (3, 5)


def test_a_detector_that_does_not_look_has_no_heat(image: np.ndarray) -> None:
    assert not heatmap(HalfRed(sign=0.0), image).any()
    drawn = overlay(HalfRed(sign=0.0), image, 48, 32)
    assert drawn.strongest == 0.0
    assert np.ptp(drawn.picture_HWC.astype(int), axis=2).max() <= 1


def test_the_overlay_tells_up_from_down_by_colour(image: np.ndarray) -> None:
    up, down = (overlay(HalfRed(sign=sign), image, 48, 32) for sign in (1.0, -1.0))
    assert up.strongest == pytest.approx(-down.strongest)
    assert up.strongest > 0
    red, _, blue = up.picture_HWC[1, 1].astype(int)
    assert red > blue + 40
    red, _, blue = down.picture_HWC[1, 1].astype(int)
    assert blue > red + 40
    assert up.picture_HWC.shape == (32, 48, 3)


def test_the_cost_is_one_forward_pass_a_cell(image: np.ndarray) -> None:
    detector = HalfRed()
    occlusion_map(detector, image, cells=4)
    assert 16 <= detector.n_seen <= 17


def test_real_networks_of_both_kinds_work() -> None:
    image_HWC = np.random.default_rng(1).integers(0, 256, (80, 72, 3)).astype(np.uint8)
    torch.manual_seed(0)
    for backbone in ("test_resnet", "test_vit"):
        detector = create_detector("frozen_probe", backbone=backbone, backbone_weights=None, image_size_px=64)
        torch.nn.init.normal_(next(p for p in detector.head.parameters() if p.ndim == 2))
        heat_HW = heatmap(detector, image_HWC, cells=3)
        assert heat_HW.max() == 1.0
        assert np.isfinite(heat_HW).all()


@pytest.mark.slow
def test_the_gallery_shows_heat_where_it_is_asked_for(
    manifest: Manifest, make_loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = make_loaded()
    monkeypatch.setattr(sys.modules["forgery_det.evaluation.evaluate"], "load_checkpoint", lambda _: loaded)
    (tmp_path / "best.ckpt").write_bytes(b"stands for the weights")
    pages = {}
    for wanted in (False, True):
        run = evaluate(
            tmp_path / "best.ckpt", manifest.root, tmp_path / "run", n_replicates=20, gallery_size=2, protocols={},
            device="cpu", heatmaps=wanted,
        )  # fmt: skip
        pages[wanted] = (run / "report.html").read_text()
    assert pages[False].count("data:image/webp;base64,") == 4
    assert pages[True].count("data:image/webp;base64,") == 8
    assert pages[True].count('class="heat"') == 4
    assert pages[True].count("strongest part") == 4
    assert "Each of 8 x 8 parts is covered in turn" in pages[True]


def test_without_captum_the_error_says_what_to_install(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ConfigError, match=r"pip install 'forgery-det\[explain\]'\.$"):
        heatmap(HalfRed(), image)
    with pytest.raises(ConfigError, match=r"^Expected `cells` of at least 1, got 0\.$"):
        heatmap(HalfRed(), image, cells=0)
