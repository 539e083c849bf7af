"""The convolutional and trace-based detectors are the published networks: official files in, official logits out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_weights import (
    IMAGES,
    Reference,
    end_to_end_difference,
    formula_difference,
    load_reference,
    module_prefixed,
    network_input,
    one_logit,
    preprocessed_difference,
    synth_state,
)
from safetensors.torch import save_file
from torch import Tensor

from forgery_det.core.errors import WeightsError
from forgery_det.detectors import Detector, create_detector
from forgery_det.detectors.spai import low_pass_mask

Wrap = Callable[[dict[str, Tensor]], Any]
Note = Callable[..., None]


@dataclass(frozen=True)
class Case:
    """A detector and its reference.

    Args:
        name: Registry name.
        folder: Name of the golden.
        wrap: Puts the state dict into the container of the released file.
        generated: Index of the generated class, where the official output has two.
        scale: What enters the network, from the normalised image.
        initialised: Fixed tensors that the golden does not store.
        unused: Prefixes of official keys that the method never uses.
    """

    name: str
    folder: str
    wrap: Wrap
    generated: int = 1
    scale: Callable[[Tensor], Tensor] = lambda image_CHW: image_CHW
    initialised: Mapping[str, Tensor] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def reference(self) -> Reference:
        return load_reference(self.folder)

    def state(self, seed: int | None = None) -> dict[str, Tensor]:
        return synth_state(self.reference, seed, initialised=self.initialised)

    def expected(self, official: Tensor) -> float:
        return one_logit(official, self.generated)

    def network(self, detector: Detector) -> Callable[[Tensor], Tensor]:
        def one(x_BCHW: Tensor) -> Tensor:
            output = detector.network(x_BCHW)
            if output.ndim == 1:
                return output
            return output[:, self.generated] - output[:, 1 - self.generated]

        return one


def in_model(state: dict[str, Tensor]) -> Any:
    return {"model": state, "epoch": 3}


def flat(state: dict[str, Tensor]) -> Any:
    return state


CASES = (
    Case("cnndetection", "cnndetection", in_model),
    Case("npr", "npr", flat),
    Case("dimd", "dimd_corvi", lambda state: {"model": module_prefixed(state)}),
    Case("gramnet", "gramnet", flat, generated=0, scale=lambda image_CHW: image_CHW.flip(0) * 255),
    Case("lgrad", "lgrad_classifier", flat),
    Case("freqnet", "freqnet", flat),
    Case("safe", "safe", in_model),
    Case("patchcraft", "patchcraft_rptc", lambda state: {"netC": module_prefixed(state)}),
    Case(
        "spai",
        "spai",
        in_model,
        initialised={"mfvit.frequencies_mask": low_pass_mask(224, 16)},
        unused=tuple(
            f"mfvit.vit.{part}"
            for part in ("cls_pos_embed", "actual_cls_token", "cls_blocks", "fc_norm", "intermediate_fc_norm", "head")
        ),
    ),
)
SMALL = tuple(case for case in CASES if case.name in ("npr", "safe", "patchcraft"))


def save(content: Any, folder: Path, name: str = "official.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def ids(case: Case) -> str:
    return case.name


@pytest.fixture(
    scope="module",
    params=[pytest.param(case, marks=pytest.mark.slow if case.name == "spai" else (), id=case.name) for case in CASES],
)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Case, Detector]]:
    case: Case = request.param
    path = save(case.wrap(case.state()), tmp_path_factory.mktemp(case.name))
    yield case, create_detector(case.name, weights=path)
    path.unlink()


@pytest.mark.slow
def test_keys_and_shapes_are_the_official_ones(loaded: tuple[Case, Detector]) -> None:
    case, detector = loaded
    official = {key: shape for key, shape, _ in case.reference.entries if not key.startswith(case.unused or ("\0",))}
    assert {key: tuple(tensor.shape) for key, tensor in detector.state_dict().items()} == official


def test_the_network_is_the_published_one(loaded: tuple[Case, Detector], note_parity: Note) -> None:
    case, detector = loaded
    difference = formula_difference(case.network(detector), case.reference, expected=case.expected)
    note_parity(case.folder, formula=difference, atol=case.reference.atol)
    assert difference <= case.reference.atol


def test_what_enters_the_network_is_what_the_authors_feed(loaded: tuple[Case, Detector]) -> None:
    case, detector = loaded
    for image in IMAGES:
        tensor = case.scale(network_input(detector, image, getattr(detector, "normalise", None)))
        assert preprocessed_difference(case.reference, image, tensor) <= 1e-6 * max(1.0, float(tensor.abs().max()))


@pytest.mark.slow
def test_files_in_official_logits_out(loaded: tuple[Case, Detector], note_parity: Note) -> None:
    case, detector = loaded
    difference = end_to_end_difference(detector, case.reference, expected=case.expected)
    note_parity(case.folder, end_to_end=difference, atol=case.reference.atol)
    assert difference <= case.reference.atol


@pytest.mark.parametrize("case", SMALL, ids=ids)
def test_a_small_file_in_official_logit_out(case: Case, tmp_path: Path) -> None:
    detector = create_detector(case.name, weights=save(case.wrap(case.state()), tmp_path))
    difference = end_to_end_difference(detector, case.reference, expected=case.expected, images=["3_small"])
    assert difference <= case.reference.atol


@pytest.mark.slow
@pytest.mark.parametrize("case", SMALL, ids=ids)
def test_every_container_of_the_weights_gives_the_same_detector(case: Case, tmp_path: Path) -> None:
    state = case.state(seed=77)
    containers = (state, {"model": state}, {"state_dict": module_prefixed(state)}, {"netC": module_prefixed(state)})
    paths = [save(content, tmp_path, f"{k}.pt") for k, content in enumerate(containers)]
    save_file(module_prefixed(state), tmp_path / "x.safetensors")
    for path in (*paths, tmp_path / "x.safetensors"):
        ours = create_detector(case.name, weights=path).state_dict()
        assert all(torch.equal(ours[key], value) for key, value in state.items())


@pytest.mark.parametrize("case", SMALL, ids=ids)
def test_a_file_that_lacks_a_key_or_has_another_is_refused(case: Case, tmp_path: Path) -> None:
    state = case.state()
    last = next(reversed(state))
    renamed = {key if key != last else "classifier.bias": value for key, value in state.items()}
    with pytest.raises(WeightsError, match=f"missing: {last}; unexpected: classifier.bias"):
        create_detector(case.name, weights=save(renamed, tmp_path))


def test_the_fixed_filters_of_patchcraft_may_be_absent(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "patchcraft")
    state = case.state()
    filters = state.pop("group1.hpf.weight")
    detector = create_detector("patchcraft", weights=save(state, tmp_path))
    assert torch.equal(detector.state_dict()["group1.hpf.weight"], filters)


@pytest.mark.slow
def test_the_mask_and_the_unused_parts_of_spai_may_be_absent(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "spai")
    state = {key: value for key, value in case.state().items() if not key.startswith((*case.unused, "mfvit.freq"))}
    detector = create_detector("spai", weights=save(state, tmp_path))
    assert formula_difference(detector.network, case.reference) <= case.reference.atol


def test_a_whole_pickled_gramnet_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    # The authors' files are whole modules, which only arbitrary unpickling can read.
    tiny = {"layers": (1, 1, 1, 1), "width": 4, "n_hidden": 8}
    with pytest.raises(WeightsError, match=r"import Python objects(.|\n)*safetensors\.torch\.save_file"):
        create_detector("gramnet", weights=save(create_detector("gramnet", **tiny), tmp_path), **tiny)


def test_the_order_of_classes_is_generated_minus_real() -> None:
    # SAFE's class 1 is generated; Gram-Net's class 0 is.
    for name, index in (("safe", 1), ("gramnet", 0)):
        detector = create_detector(name, layers=(1, 1) if name == "safe" else (1, 1, 1, 1), width=4)
        last = detector.fc1 if name == "safe" else detector.fcnewr[3]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(torch.tensor([0.0, 0.0]).index_fill(0, torch.tensor(index), 2.0))
            assert float(detector(torch.rand(1, 3, 64, 64))) == pytest.approx(2.0, abs=1e-6)
