"""The weights rule of the reference numerics, and what parity tests share.

Every reference was measured with weights that anybody can make again: a normal sample per tensor, seeded by the CRC-32
of its key plus the file's seed, scaled by fan-in, then by the gains that the file lists. `tests/goldens/reference`
holds what is needed of each; `freeze.py` there made it.

A parity test is four lines:
    reference = load_reference("npr")
    torch.save({"model": synth_state(reference)}, tmp_path / "official.pth")
    detector = create_detector("npr", weights=tmp_path / "official.pth")
    assert end_to_end_difference(detector, reference) <= reference.atol
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forgery_det.core.image_io import decode_file
from forgery_det.detectors.base import Detector, to_tensor

GOLDENS = Path(__file__).parents[1] / "goldens" / "reference"
IMAGES = ("0_noise", "1_shapes", "2_texture", "3_small")

ALIASES: Mapping[str, Sequence[tuple[str, str]]] = {
    "aeroblade": ((r"^lpips\.lin(\d)\.", r"lpips.lins.\1."),),
    "fatformer": ((r"^clip_model\.visual\.", "image_encoder."), (r"^clip_model\.", "text_encoder.")),
}
"""Reference -> pairs (pattern, replacement) that give the later name of a tensor that stands under two names."""


@dataclass(frozen=True)
class Reference:
    """One golden.

    Args:
        name: Folder of the reference.
        seed: Seed of the weights rule.
        gains: Pairs (pattern, factor), applied in order.
        kept: Keys that the official code fills itself (fixed filters).
        entries: Key, shape and dtype of each tensor of the official state dict, in order.
        checksum: Sums of the first and last three entries.
        constants: Values of `kept` tensors that are stored with the reference.
        atol: Tolerance on logits.
        facts: The whole golden, for whatever else a test needs.
    """

    name: str
    seed: int
    gains: tuple[tuple[str, float], ...]
    kept: tuple[str, ...]
    entries: tuple[tuple[str, tuple[int, ...], str], ...]
    checksum: Mapping[str, float]
    constants: Mapping[str, Tensor]
    atol: float
    facts: Mapping[str, Any]

    def raises(self, image: str) -> bool:
        """Tell whether the official code fails on a test image."""
        return "end_to_end_logits" not in self.facts["outputs"][image]

    def logits(self, image: str) -> Tensor:
        """Return the raw official output for a test image, flattened."""
        return torch.tensor(self.facts["outputs"][image]["end_to_end_logits"], dtype=torch.float64)

    def formula_logits(self) -> Tensor:
        """Return the raw official output for `formula_input`, flattened."""
        return torch.tensor(self.facts["network_formula_input"]["logits"], dtype=torch.float64)

    def formula_input(self) -> Tensor:
        """Return the network input (after normalisation, batch of one) that anybody can make again."""
        shape = self.facts["network_formula_input"]["input"]["shape"]
        return torch.from_numpy(np.random.default_rng(5000).standard_normal(shape).astype(np.float32))[None]


def list_references() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in GOLDENS.glob("*.json")))


@cache
def load_reference(name: str) -> Reference:
    facts = json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))
    return Reference(
        name=name,
        seed=facts["seed"],
        gains=tuple((pattern, factor) for pattern, factor in facts["gains"]),
        kept=tuple(facts["keys_left_as_initialised"]),
        entries=tuple((key, tuple(shape), dtype) for key, shape, dtype in facts["state_dict"]),
        checksum=facts["weights_checksum"],
        constants={
            key: torch.tensor(value["values"], dtype=torch.float32).reshape(value["shape"])
            for key, value in facts["constants"].items()
        },
        atol=facts["suggested_atol"],
        facts=facts,
    )


def synth(key: str, shape: Sequence[int], seed: int, gains: Sequence[tuple[str, float]]) -> Tensor:
    """Return the tensor of one key by the weights rule."""
    z = np.random.default_rng(zlib.crc32(key.encode()) + seed).standard_normal(tuple(shape))
    if len(shape) >= 2:
        z *= np.sqrt(2 / np.prod(shape[1:], dtype=np.float64))
    elif key.endswith("running_var"):
        z = 1 + 0.1 * np.abs(z)
    elif key.split(".")[-1] == "weight":
        z = 1 + 0.1 * z
    else:
        z = 0.1 * z
    value = z.astype(np.float32)
    for pattern, factor in gains:
        if re.search(pattern, key):
            value = (value * np.float32(factor)).astype(np.float32)
    return torch.from_numpy(np.asarray(value))


def synth_state(
    reference: Reference,
    seed: int | None = None,
    *,
    initialised: Mapping[str, Tensor] | None = None,
    keys: Callable[[str], bool] | None = None,
) -> dict[str, Tensor]:
    """Return the official state dict with the weights of the rule.

    A tensor that stands under two names (`ALIASES`) has the value of the later name under both.

    Args:
        reference: A golden.
        seed: Other than the golden's, to see that parity is no accident of one seed.
        initialised: Tensors that the official code fills itself and that the golden does not store. Integer scalars
            (BatchNorm's counters) are 0 and float scalars (`logit_scale`) ln(1 / 0.07) without being named here.
        keys: Makes only the tensors whose key passes, for files that hold a part; None makes all.

    Raises:
        KeyError: A tensor is neither made by the rule nor given.
    """
    seed = reference.seed if seed is None else seed
    given = {**reference.constants, **(initialised or {})}
    names = {key for key, _, _ in reference.entries}
    state: dict[str, Tensor] = {}
    for key, shape, dtype in reference.entries:
        if keys is not None and not keys(key):
            continue
        if key in given:
            state[key] = given[key].reshape(shape).to(getattr(torch, dtype))
        elif not shape:
            scalar = math.log(1 / 0.07) if dtype.startswith("float") else 0
            state[key] = torch.tensor(scalar, dtype=getattr(torch, dtype))
        elif key in reference.kept or not dtype.startswith("float"):
            raise KeyError(f"Expected `initialised` to give {key}, which the official code fills itself.")
        else:
            state[key] = synth(_last_name(key, names, reference.name), shape, seed, reference.gains)
    return state


def _last_name(key: str, names: Set[str], reference: str) -> str:
    later = (re.sub(pattern, replacement, key) for pattern, replacement in ALIASES.get(reference, ()))
    return next((name for name in later if name != key and name in names), key)


def read_image(image: str) -> np.ndarray:
    """Return a test image, uint8 RGB HWC, through the product's decoder."""
    return decode_file(GOLDENS / "images" / f"{image}.png").image_HWC


def preprocessed_difference(reference: Reference, image: str, tensor: Tensor) -> float:
    """Return the largest difference of the tensor that enters the network from the golden's spot values and statistics.

    Args:
        reference: A golden.
        image: Name of the test image.
        tensor: Without the batch axis.
    """
    expected = reference.facts["preprocessed"][image]
    if list(tensor.shape) != expected["shape"]:
        raise AssertionError(f"Expected the shape {expected['shape']}, got {list(tensor.shape)} ({image}).")
    flat = tensor.detach().double().flatten()
    ours = [*flat[torch.tensor(expected["index"])].tolist(), float(flat.mean()), float(flat.std(correction=0))]
    ours += [float(flat.min()), float(flat.max())]
    theirs = [*expected["value"], expected["mean"], expected["std"], expected["min"], expected["max"]]
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


def one_logit(official: Tensor, generated: int = 1) -> float:
    """Return our logit for an official output: itself, or generated minus real where there are two classes."""
    values = official.double().flatten()
    if len(values) == 1:
        return float(values[0])
    return float(values[generated] - values[1 - generated])


def end_to_end_difference(
    detector: Detector,
    reference: Reference,
    *,
    expected: Callable[[Tensor], float] = one_logit,
    images: Sequence[str] = IMAGES,
) -> float:
    """Return the largest difference between `detector.logit` of the test images and the official logits.

    Args:
        detector: Loaded with the synthetic official checkpoint.
        reference: A golden.
        expected: Maps the raw official output to the logit that ours should be.
        images: Which test images.
    """
    scored = [image for image in images if not reference.raises(image)]
    return max(abs(detector.logit(read_image(image)) - expected(reference.logits(image))) for image in scored)


def formula_difference(
    network: Callable[[Tensor], Tensor], reference: Reference, *, expected: Callable[[Tensor], float] = one_logit
) -> float:
    """Return the difference of the network's output (one logit, after normalisation) on the formula input."""
    with torch.no_grad():
        return abs(float(network(reference.formula_input()).flatten()[0]) - expected(reference.formula_logits()))


def module_prefixed(state: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """Return the state dict as DataParallel writes it."""
    return {prefix + key: value for key, value in state.items()}


def network_input(detector: Detector, image: str, normalise: nn.Module | None = None) -> Tensor:
    """Return what enters the network for a test image: preprocessed, in [0, 1], normalised when given how."""
    tensor = to_tensor(detector.preprocess(read_image(image)))
    return tensor if normalise is None else normalise(tensor[None])[0]
