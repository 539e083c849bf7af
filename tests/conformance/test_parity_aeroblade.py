"""AEROBLADE gives the distances of the official code, with its stand-in for the autoencoder of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from reference_weights import (
    Reference,
    end_to_end_difference,
    load_reference,
    module_prefixed,
    network_input,
    preprocessed_difference,
    read_image,
    synth_state,
)
from torch import Tensor

from forgery_det.core.errors import WeightsError
from forgery_det.detectors import create_detector
from forgery_det.detectors.aeroblade import Aeroblade
from forgery_det.detectors.base import to_tensor

pytest.importorskip("diffusers", reason="the extra `generate` is not installed")

STAND_IN = {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 8}
SETTINGS = {"autoencoders": (STAND_IN,)}
SCALING = {
    "lpips.scaling_layer.shift": torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1),
    "lpips.scaling_layer.scale": torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1),
}
Note = Callable[..., None]

SCORED = ("0_noise", "1_shapes", "2_texture")


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load_reference("aeroblade")


@pytest.fixture(scope="module")
def state(reference: Reference) -> dict[str, Tensor]:
    return synth_state(reference, initialised=SCALING)


@pytest.fixture(scope="module")
def detector(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Aeroblade:
    path = tmp_path_factory.mktemp("official") / "official.pth"
    torch.save(state, path)
    made = create_detector("aeroblade", weights=path, **SETTINGS)
    assert isinstance(made, Aeroblade)
    return made


def test_official_input(detector: Aeroblade, reference: Reference) -> None:
    for image in SCORED:
        assert preprocessed_difference(reference, image, network_input(detector, image)) <= 1e-6


def test_all_six_official_numbers_for_the_formula_input(
    detector: Aeroblade, reference: Reference, note_parity: Note
) -> None:
    ours = -detector.distances(reference.formula_input())[0].double()
    difference = float((ours - reference.formula_logits()).abs().max())
    note_parity(reference.name, formula=difference, atol=reference.atol)
    assert difference <= reference.atol


@pytest.mark.slow
@pytest.mark.parametrize("image", SCORED)
def test_official_logits(image: str, detector: Aeroblade, reference: Reference, note_parity: Note) -> None:
    picture = to_tensor(detector.preprocess(read_image(image)))[None]
    every = float((-detector.distances(picture)[0] - reference.logits(image)).abs().max())
    note_parity(reference.name, end_to_end=every, atol=reference.atol)
    assert every <= reference.atol


@pytest.mark.slow
def test_the_logit_is_the_second_layer(detector: Aeroblade, reference: Reference) -> None:
    difference = end_to_end_difference(
        detector, reference, expected=lambda official: float(official[2]), images=SCORED[:1]
    )
    assert difference <= reference.atol


@pytest.mark.slow
def test_an_image_that_the_official_code_fails_on_is_scored(detector: Aeroblade, reference: Reference) -> None:
    assert reference.raises("3_small")
    image = read_image("3_small")
    # 181 x 150 px: the central 176 x 144 px.
    assert detector.logit(image) == pytest.approx(detector.logit(image[3:147, 2:178]), abs=1e-6)


@pytest.mark.slow
def test_other_forms_of_the_file_give_the_same_network(
    detector: Aeroblade, state: dict[str, Tensor], tmp_path: Path
) -> None:
    once = {key: value for key, value in state.items() if ".lins." not in key and "scaling_layer" not in key}
    twice = {key: value for key, value in state.items() if ".lin0." not in key}
    for form in (module_prefixed(state), {"state_dict": once}, {"model": twice}):
        torch.save(form, tmp_path / "a.pth")
        other = create_detector("aeroblade", weights=tmp_path / "a.pth", **SETTINGS)
        torch.testing.assert_close(other.state_dict(), detector.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["vae.decoder.conv_in.bias", "lpips.net.slice3.12.weight"])
def test_a_missing_key_is_named(gone: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({key: value for key, value in state.items() if key != gone}, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match=rf"missing: \S*{gone.split('.', 1)[1]}.*less\.pth"):
        create_detector("aeroblade", weights=tmp_path / "less.pth", **SETTINGS)
