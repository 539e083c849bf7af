from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import vgg16

from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.detectors import create_detector
from forgery_det.detectors._lpips import LPIPS, load_lpips
from forgery_det.detectors.aeroblade import STABLE_DIFFUSION, Aeroblade

pytest.importorskip("diffusers", reason="the extra `generate` is not installed")

TINY = dict(Aeroblade.tiny)
WIDTHS = (4, 4, 8, 8, 8)


@pytest.fixture(autouse=True)
def fixed_weights():
    # Random networks this narrow can be dead: every distance is then 0.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def image(n: int = 2, height: int = 48, width: int = 48) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_equal_images_have_no_distance_and_layer_0_is_the_sum_of_the_others():
    lpips = LPIPS(WIDTHS)
    assert lpips(image(), image()).abs().max() == 0
    other = image().flip(-1)
    distance_B6 = lpips(image(), other)
    torch.testing.assert_close(distance_B6, lpips(other, image()))
    maps = lpips.maps(image(), other)
    assert [tuple(m.shape[2:]) for m in maps] == [(48, 48), (24, 24), (12, 12), (6, 6), (3, 3)]
    torch.testing.assert_close(distance_B6[:, 1:], torch.stack([m.mean(dim=(1, 2, 3)) for m in maps], dim=1))
    full = sum(torch.nn.functional.interpolate(m, (48, 48), mode="bilinear") for m in maps)
    torch.testing.assert_close(distance_B6[:, 0], full.mean(dim=(1, 2, 3)))


@pytest.mark.slow
def test_weights_of_torchvision_and_of_the_authors_together_are_lpips():
    network = vgg16(weights=None).eval()
    lpips = LPIPS()
    channel_weights = {key: torch.rand_like(value) for key, value in lpips.state_dict().items() if "lin" in key}
    load_lpips(lpips, network.state_dict() | channel_weights)
    x = 2 * image(1) - 1
    x = (x - torch.tensor([-0.030, -0.088, -0.188]).reshape(3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).reshape(
        3, 1, 1
    )
    with torch.no_grad():
        expected = network.features[:30](x)
        ours = x
        for stage in range(1, 6):
            ours = getattr(lpips.net, f"slice{stage}")(ours)
    torch.testing.assert_close(ours, expected)
    assert torch.equal(lpips.lin2.model[1].weight, channel_weights["lin2.model.1.weight"])
    with pytest.raises(WeightsError, match=r"missing: lin0\.model\.1\.weight"):
        load_lpips(lpips, network.state_dict())


def test_the_logit_is_that_of_the_best_autoencoder():
    both = create_detector("aeroblade", **TINY | {"autoencoders": TINY["autoencoders"] * 2})
    first, second = (-both.distances(image(), k)[:, 2] for k in (0, 1))
    assert not torch.equal(first, second)
    torch.testing.assert_close(both(image()), torch.maximum(first, second))


def test_the_reconstruction_is_the_sampled_latent_decoded_and_truncated():
    aeroblade = create_detector("aeroblade", **TINY | {"seed": 7})
    vae = aeroblade.vae[0]
    with torch.no_grad():
        posterior = vae.encode(2 * image(1) - 1).latent_dist
        latent = posterior.sample(generator=torch.Generator().manual_seed(7))
        decoded = (vae.decode(latent).sample / 2 + 0.5).clamp(0, 1)[0]
    expected = np.floor(decoded.numpy() * np.float32(255)).astype(np.uint8)
    ours = aeroblade.reconstruction(image(1))  # a batch of one: another size may round a value to the next step
    np.testing.assert_array_equal(np.rint(ours[0].numpy() * 255).astype(np.uint8), expected)
    other = create_detector("aeroblade", **TINY | {"seed": 8})
    other.load_state_dict(aeroblade.state_dict())
    assert not torch.equal(other.reconstruction(image()), ours)


def test_sides_are_cut_to_what_the_autoencoder_can_halve():
    aeroblade = create_detector("aeroblade", **TINY | {"crop_px": None, "max_side_px": 40})
    whole = picture(33, 90)
    # 40 px of the width are kept, and 32 of the 33 rows, the upper ones.
    assert aeroblade.logit(whole) == pytest.approx(aeroblade.logit(np.ascontiguousarray(whole[:32, 25:65])))
    assert aeroblade.preprocess(picture(3, 90)).shape == (16, 40, 3)


def test_published_parts_are_loaded(tmp_path):
    source = create_detector("aeroblade", **TINY)
    source.vae[0].save_pretrained(tmp_path / "vae")
    lpips = source.lpips.state_dict()
    torch.save({key: value for key, value in lpips.items() if key.startswith("lin")}, tmp_path / "lin.pth")
    torch.save({key: value for key, value in lpips.items() if key.startswith("net")}, tmp_path / "net.pth")
    parts = {
        "autoencoders": [str(tmp_path / "vae")],
        "lpips": [str(tmp_path / "lin.pth"), str(tmp_path / "net.pth")],
    }
    loaded = create_detector("aeroblade", **TINY, backbone_weights=parts)
    torch.testing.assert_close(loaded.state_dict(), source.state_dict(), rtol=0, atol=0)
    with pytest.raises(WeightsError, match="Expected an autoencoder in diffusers' format"):
        create_detector("aeroblade", **TINY, backbone_weights=parts | {"autoencoders": str(tmp_path)})
    with pytest.raises(ConfigError, match="Expected weights for 1 autoencoders, got 2"):
        create_detector("aeroblade", **TINY, backbone_weights=parts | {"autoencoders": ["a", "b"]})
    with pytest.raises(ConfigError, match=r"Expected `backbone_weights` of aeroblade to be a dictionary"):
        create_detector("aeroblade", **TINY, backbone_weights=str(tmp_path))


def test_a_file_tells_the_shape_of_its_autoencoders(tmp_path):
    one = {"block_out_channels": (8, 16, 16), "layers_per_block": 1, "latent_channels": 3, "norm_num_groups": 2}
    two = {"block_out_channels": (8, 8), "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": 2}
    widths = {"vgg_widths": (4, 4, 8, 8, 8)}
    for shapes in ((one,), (one, two | {"use_quant_conv": False, "use_post_quant_conv": False})):
        detector = create_detector("aeroblade", autoencoders=shapes, **widths)
        state = detector.state_dict()
        if len(shapes) == 1:
            state = {key.replace("vae.0.", "vae."): value for key, value in state.items()}
        torch.save(state, tmp_path / "x.pth")
        loaded = create_detector("aeroblade", weights=tmp_path / "x.pth", **widths)
        assert loaded.arguments["autoencoders"] == shapes
        torch.testing.assert_close(loaded.state_dict(), detector.state_dict(), rtol=0, atol=0)


def test_the_published_autoencoder_is_told_by_its_shapes():
    with torch.device("meta"):
        state = Aeroblade(backbone_weights=None).state_dict()
    assert Aeroblade.settings_from(state)["autoencoders"] == (STABLE_DIFFUSION,)


def test_what_a_caller_says_of_the_autoencoder_counts(tmp_path):
    shape = {"block_out_channels": (8, 8), "layers_per_block": 1, "latent_channels": 2, "norm_num_groups": 4}
    settings = {"autoencoders": (shape,), "vgg_widths": (4, 4, 8, 8, 8)}
    torch.save(create_detector("aeroblade", **settings).state_dict(), tmp_path / "x.pth")
    assert create_detector("aeroblade", weights=tmp_path / "x.pth", **settings).arguments["autoencoders"] == (shape,)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"Unknown setting 'latent_chanels' of an autoencoder: .*latent_channels"):
        Aeroblade(autoencoders=({"latent_chanels": 4},))
    with pytest.raises(ConfigError, match=r"Expected `layer` in \[0, 5\], got 6"):
        Aeroblade(**TINY | {"layer": 6})
    with pytest.raises(ConfigError, match="Expected at least one autoencoder"):
        Aeroblade(autoencoders=())
    with pytest.raises(ConfigError, match="Expected settings that build an autoencoder"):
        Aeroblade(autoencoders=({"block_out_channels": (8, 8), "norm_num_groups": 3},))


def test_without_diffusers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match=r"Expected the package diffusers.*forgery-det\[generate\]"):
        create_detector("aeroblade", **TINY)


def test_the_module_is_imported_without_diffusers():
    source = Path(importlib.import_module("forgery_det.detectors.aeroblade").__file__).read_text(encoding="utf-8")
    assert "import diffusers" not in source
    assert "from diffusers" not in source
