"""Files of authors on tiny instances of the CLIP family: heads alone, whole networks, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_clip_vit import SPEC, hugging_face_state, openai_state, plain_forward
from torch import Tensor

from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.detectors import DETECTORS, create_detector
from forgery_det.detectors._adapters import LoraLinear, ResidualLinear
from forgery_det.detectors._clip_vit import CLIP_MEAN, CLIP_STD
from forgery_det.detectors._forgery_adapter import haar, inverse_haar
from forgery_det.detectors.aide import choose_windows
from forgery_det.detectors.b_free import windows
from forgery_det.detectors.base import Normalise
from forgery_det.detectors.d3 import shuffle_patches
from forgery_det.detectors.dda import interpolate_positions
from forgery_det.detectors.fatformer import FatFormer

HEADS = {"univfd": "", "clipdet": "fc.", "rine": "", "d3": ""}
"""Detector -> what stands before the head's names in the file that its authors release."""


def tiny(name: str, **changes):
    return create_detector(name, **(dict(DETECTORS.get(name).tiny) | changes))


def save(path, state):
    torch.save(state, path)
    return path


@pytest.fixture(name="image_BCHW")
def make_image() -> Tensor:
    return torch.rand(2, 3, SPEC.image_px, SPEC.image_px, generator=torch.Generator().manual_seed(1))


@pytest.fixture(name="normalised_BCHW")
def make_normalised(image_BCHW) -> Tensor:
    return Normalise(CLIP_MEAN, CLIP_STD)(image_BCHW)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_alone_goes_on_a_given_backbone(name, tmp_path, image_BCHW):
    settings = dict(DETECTORS.get(name).tiny)
    clip = save(tmp_path / "clip.pt", openai_state())
    whole = tiny(name, backbone_weights=str(clip))
    head = {f"{HEADS[name]}{key}": tensor for key, tensor in whole.head.state_dict().items()}
    for content in (head, {f"module.{key}": tensor for key, tensor in head.items()}, {"state_dict": head}):
        path = save(tmp_path / "head.pth", content)
        loaded = create_detector(name, weights=path, **settings | {"backbone_weights": str(clip)})
        with torch.no_grad():
            torch.testing.assert_close(loaded(image_BCHW), whole(image_BCHW), rtol=0, atol=0)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_with_a_key_too_few_is_refused(name, tmp_path):
    detector = tiny(name)
    head = {f"{HEADS[name]}{key}": tensor for key, tensor in detector.head.state_dict().items()}
    lost = next(iter(head))
    del head[lost]
    with pytest.raises(WeightsError, match=r"missing: .*head\.pth"):
        create_detector(name, weights=save(tmp_path / "head.pth", head), **DETECTORS.get(name).tiny)


def test_a_whole_univfd_is_a_linear_layer_on_clips_embedding(tmp_path, image_BCHW, normalised_BCHW):
    clip = openai_state()
    fc = {"fc.weight": torch.randn(1, SPEC.embedding), "fc.bias": torch.randn(1)}
    state = {f"model.{key}": tensor for key, tensor in clip.items()} | fc
    detector = create_detector("univfd", weights=save(tmp_path / "a.pth", state), backbone="test_clip_vit")
    embedding_BE, _ = plain_forward(clip, normalised_BCHW)
    expected_B = (embedding_BE @ fc["fc.weight"].T + fc["fc.bias"])[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(detector(image_BCHW), expected_B, rtol=1e-4, atol=1e-4)


def test_a_text_encoder_is_refused_where_the_authors_file_has_none(tmp_path):
    state = openai_state() | {"fc.weight": torch.randn(1, SPEC.width), "fc.bias": torch.randn(1)}
    with pytest.raises(WeightsError, match=r"unexpected: head\.positional_embedding"):
        create_detector("clipdet", weights=save(tmp_path / "a.pth", state), backbone="test_clip_vit")


def test_the_release_of_c2p_clip_loads_beside_fresh_low_rank_parts(tmp_path, image_BCHW, normalised_BCHW):
    clip = openai_state()
    fc = {"model.fc.weight": torch.randn(1, SPEC.embedding), "model.fc.bias": torch.randn(1)}
    release = {f"model.{key}": tensor for key, tensor in hugging_face_state(clip).items() if key != "logit_scale"} | fc
    path = save(tmp_path / "a.pth", release)
    detector = create_detector("c2p_clip", weights=path, backbone="test_clip_vit", lora_rank=2)
    embedding_BE, _ = plain_forward(clip, normalised_BCHW)
    expected_B = (F.normalize(embedding_BE) @ fc["model.fc.weight"].T + fc["model.fc.bias"])[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(detector(image_BCHW), expected_B, rtol=1e-4, atol=1e-4)


def test_taking_weights_apart_does_not_change_effort(tmp_path, normalised_BCHW):
    clip = openai_state()
    detector = tiny("effort", rank=3, backbone_weights=str(save(tmp_path / "clip.pt", clip)))
    embedding_BE, _ = plain_forward(clip, normalised_BCHW)
    with torch.no_grad():
        feature_BD = detector.clip(normalised_BCHW)
    torch.testing.assert_close(feature_BD @ clip["visual.proj"], embedding_BE, rtol=1e-3, atol=1e-3)
    factor = detector.clip.trunk.blocks[0].attn.qkv.residual()
    assert torch.linalg.matrix_rank(factor, rtol=1e-4).tolist() == [3, 3, 3]


def test_low_rank_parts_are_added_part_by_part():
    layer = LoraLinear(torch.nn.Linear(5, 6), rank=2, alpha=4.0, parts=3)
    torch.nn.init.normal_(layer.lora_b)
    update = torch.cat([b @ a for a, b in zip(layer.lora_a.chunk(3), layer.lora_b.chunk(3), strict=True)])
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(layer(x), layer.base(x) + x @ update.T * 2)


def test_a_rank_beyond_the_weight_is_an_error():
    with pytest.raises(ConfigError, match="rank from 1"):
        ResidualLinear(torch.nn.Linear(4, 6), rank=3, parts=3)


@pytest.mark.parametrize("generated", [0.0, 5.0])
def test_two_classes_become_generated_minus_real(tmp_path, image_BCHW, generated):
    detector = tiny("drct")
    state = detector.state_dict() | {
        "fc.weight": torch.zeros(2, detector.fc.in_features),
        "fc.bias": torch.tensor([1.0, generated]),
    }
    loaded = create_detector("drct", weights=save(tmp_path / "a.pth", state), **DETECTORS.get("drct").tiny)
    with torch.no_grad():
        assert loaded(image_BCHW).tolist() == [generated - 1.0] * 2


def test_the_three_files_of_co_spy_load_together(tmp_path, image_BCHW):
    torch.manual_seed(0)
    source, target = tiny("co_spy"), tiny("co_spy")
    target.clip.load_state_dict(source.clip.state_dict())
    state = source.state_dict()
    artefact = {f"artifact_encoder.{k.removeprefix('artefact.')}": v for k, v in state.items() if "artefact." in k}
    artefact |= {"artifact_encoder.fc1.weight": torch.zeros(1, 4), "artifact_encoder.fc1.bias": torch.zeros(1)}
    parts = {
        "semantic": {"fc.weight": source.semantic_head.weight, "fc.bias": source.semantic_head.bias},
        "artefact": artefact | {"fc.weight": source.artefact_head.weight, "fc.bias": source.artefact_head.bias},
        "fusion": {"fc.weight": source.fusion.weight, "fc.bias": source.fusion.bias},
    }
    target.load_parts(**{name: save(tmp_path / f"{name}.pth", part) for name, part in parts.items()})
    with torch.no_grad():
        torch.testing.assert_close(target(image_BCHW), source(image_BCHW), rtol=0, atol=0)


def test_co_spy_without_its_image_encoder_goes_on_a_given_one(tmp_path, image_BCHW):
    clip = save(tmp_path / "clip.pt", openai_state())
    torch.manual_seed(0)
    source = tiny("co_spy", backbone_weights=str(clip))
    learnt = {key: value for key, value in source.state_dict().items() if not key.startswith("clip.")}
    settings = dict(DETECTORS.get("co_spy").tiny) | {"backbone_weights": str(clip)}
    loaded = create_detector("co_spy", weights=save(tmp_path / "x.pth", learnt), **settings)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image_BCHW), source(image_BCHW), rtol=0, atol=0)
    learnt.pop("fusion.bias")
    with pytest.raises(WeightsError, match=r"missing: fusion\.bias"):
        create_detector("co_spy", weights=save(tmp_path / "x.pth", learnt), **settings)


@pytest.mark.parametrize("size", [{"n_layers": 3, "dim": 8}, {"n_layers": 1, "dim": 24}])
def test_a_released_head_of_rine_tells_its_size(size, tmp_path):
    path = save(tmp_path / "x.pth", tiny("rine", **size).head.state_dict())
    loaded = create_detector("rine", weights=path, backbone="test_clip_vit", backbone_weights=None)
    assert {key: loaded.arguments[key] for key in size} == size


def meta_state(module):
    """The state dict of a module on the meta device, as empty tensors of the same shapes that take no memory."""
    return {key: torch.zeros(()).expand(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize("backbone", ["convnext_base", "clip_vit_l14"])
def test_a_file_of_drct_tells_its_backbone(backbone):
    detector_class = DETECTORS.get("drct")
    with torch.device("meta"):
        detector = detector_class(backbone=backbone, backbone_weights=None)
    state = meta_state(detector)
    ours, theirs = "clip.trunk.patch_embed.proj.weight", "model.visual.conv1.weight"
    state = {key.replace(ours, theirs): value for key, value in state.items()}
    assert detector_class.settings_from(state) == {"backbone": backbone}
    assert detector_class.settings_from({"fc.weight": torch.zeros(2, 1024)}) == {}


def test_the_smaller_file_of_community_forensics_brings_its_geometry(tmp_path):
    detector_class = DETECTORS.get("community_forensics")
    with torch.device("meta"):
        large = detector_class(backbone_weights=None)
        small = detector_class(
            backbone="vit_small_patch16_224.augreg_in21k_ft_in1k",
            image_size_px=224,
            resize_px=256,
            backbone_weights=None,
        )
    assert detector_class.settings_from(meta_state(large)) == {}
    told = detector_class.settings_from(meta_state(small))
    assert (told["image_size_px"], told["resize_px"]) == (224, 256)
    with torch.device("meta"):
        assert detector_class(**told, backbone_weights=None).preprocess == small.preprocess


def test_patches_are_shuffled_by_the_stated_permutation():
    order_N = torch.from_numpy(np.random.default_rng(3).permutation(6))
    image_BCHW = torch.randn(2, 3, 8, 12)
    shuffled_BCHW = shuffle_patches(image_BCHW, order_N, 4)
    for place, patch in enumerate(order_N.tolist()):
        ours = shuffled_BCHW[..., 4 * (place // 3) :, 4 * (place % 3) :][..., :4, :4]
        theirs = image_BCHW[..., 4 * (patch // 3) :, 4 * (patch % 3) :][..., :4, :4]
        assert torch.equal(ours, theirs)


def test_positions_at_their_own_size_are_not_touched():
    position_1ND = torch.randn(1, 17, 5)
    assert torch.equal(interpolate_positions(position_1ND, 4), position_1ND)
    assert interpolate_positions(position_1ND, 3).shape == (1, 10, 5)
    assert interpolate_positions(position_1ND, 7).shape == (1, 50, 5)


def test_a_small_grid_is_repeated_before_windows_are_cut():
    grid_BDhw = torch.arange(6.0).reshape(1, 1, 2, 3)
    cut = windows(grid_BDhw, 4)
    assert len(cut) == 5
    assert cut[0][0, 0].tolist() == [[0, 1, 2, 0], [3, 4, 5, 3], [0, 1, 2, 0], [3, 4, 5, 3]]


def test_the_wavelet_is_orthonormal_and_invertible():
    x_BDhw = torch.randn(2, 3, 4, 6)
    assert torch.linalg.norm(haar(x_BDhw)) == pytest.approx(float(torch.linalg.norm(x_BDhw)), rel=1e-5)
    torch.testing.assert_close(inverse_haar(haar(x_BDhw)), x_BDhw)


def test_the_smoothest_and_the_busiest_window_are_chosen():
    image_CHW = torch.full((3, 64, 96), 0.5)
    noise = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    image_CHW[:, 32:, 64:] = noise
    image_CHW[:, :32, :32] = 0.0
    lowest, highest, _, _ = choose_windows(image_CHW)
    assert torch.equal(lowest, torch.zeros(3, 32, 32))
    assert torch.equal(highest, noise)


def test_a_single_window_is_taken_four_times():
    chosen_VCHW = choose_windows(torch.rand(3, 32, 40))
    assert chosen_VCHW.shape == (4, 3, 32, 32)
    assert all(torch.equal(window, chosen_VCHW[0]) for window in chosen_VCHW)


def test_filters_other_than_the_papers_are_refused(tmp_path):
    detector = tiny("aide")
    state = detector.state_dict() | {"hpf.hpf.weight": torch.zeros(30, 3, 5, 5)}
    with pytest.raises(WeightsError, match="spatial rich model"):
        create_detector("aide", weights=save(tmp_path / "a.pth", state), **DETECTORS.get("aide").tiny)


def test_fatformer_starts_from_a_file_with_both_encoders(tmp_path):
    width = SPEC.embedding
    block = {
        "attn.in_proj_weight": torch.randn(3 * width, width),
        "attn.in_proj_bias": torch.randn(3 * width),
        "attn.out_proj.weight": torch.randn(width, width),
        "attn.out_proj.bias": torch.randn(width),
        "ln_1.weight": torch.randn(width),
        "ln_1.bias": torch.randn(width),
        "ln_2.weight": torch.randn(width),
        "ln_2.bias": torch.randn(width),
        "mlp.c_fc.weight": torch.randn(4 * width, width),
        "mlp.c_fc.bias": torch.randn(4 * width),
        "mlp.c_proj.weight": torch.randn(width, 4 * width),
        "mlp.c_proj.bias": torch.randn(width),
    }
    visual = {key: tensor for key, tensor in openai_state().items() if key.startswith("visual.")}
    text = {f"transformer.resblocks.0.{key}": tensor for key, tensor in block.items()}
    words_VE = torch.randn(49408, width)
    text |= {
        "positional_embedding": torch.randn(77, width),
        "text_projection": torch.randn(width, width),
        "token_embedding.weight": words_VE,
        "ln_final.weight": torch.randn(width),
        "ln_final.bias": torch.randn(width),
        "logit_scale": torch.tensor(3.0),
        "input_resolution": torch.tensor(56),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    path = save(tmp_path / "clip.pt", visual | text)
    detector = tiny("fatformer", backbone_weights=str(path))
    assert torch.equal(detector.text.after_KND[1], words_VE[[5777, 269, 49407]])
    assert torch.equal(detector.text.start_K1D[0, 0], words_VE[49406])
    assert torch.equal(detector.text.position_ND, text["positional_embedding"][:12])
    assert torch.equal(detector.text.projection.weight, text["text_projection"].T)
    assert detector.logit_scale == 3.0


def test_fatformer_says_that_timm_has_no_text_encoder():
    with pytest.raises(ConfigError, match="no text encoders"):
        FatFormer(backbone="test_clip_vit", n_adapters=1)
