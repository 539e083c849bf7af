"""Detectors on CLIP and other vision transformers give the logits of the official code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_weights import (
    Reference,
    end_to_end_difference,
    formula_difference,
    load_reference,
    module_prefixed,
    network_input,
    preprocessed_difference,
    synth_state,
)
from torch import Tensor, nn

from forgery_det.detectors import create_detector
from forgery_det.detectors.base import Detector

_TEXT = re.compile(
    r"(model\.|clip\.|model\.model\.)(positional_embedding|text_projection|logit_scale|token_embedding\.|ln_final\.|transformer\.)"
)


def official_state(reference: Reference) -> dict[str, Tensor]:
    """Return the synthetic official state dict; a text encoder that no logit depends on is filled with one number."""
    made = synth_state(reference, keys=lambda key: not _TEXT.match(key))
    # An expanded scalar keeps its shape and takes four bytes in the file.
    return {key: made.get(key, torch.tensor(0.5).expand(shape)) for key, shape, _ in reference.entries}


def fatformer_state(reference: Reference) -> dict[str, Tensor]:
    """Return the synthetic state dict of FatFormer, where both encoders appear twice and share their tensors."""

    def last_name(key: str) -> str:
        key = re.sub(r"^clip_model\.visual\.", "image_encoder.", key)
        return re.sub(
            r"^clip_model\.(transformer|positional_embedding|text_projection|ln_final)", r"text_encoder.\1", key
        )

    root = 0.5**0.5
    haar = {"0_col": [root, root], "1_col": [root, -root], "0_row": [root, root], "1_row": [root, -root]}
    filters = {key: torch.tensor(haar[key[-5:]]) for key in reference.kept if key[-5:] in haar}
    last = {last_name(key) for key, _, _ in reference.entries}
    unread = "clip_model.token_embedding.weight"
    made = synth_state(reference, initialised=filters, keys=lambda key: key in last and key != unread)
    made[unread] = torch.tensor(0.5).expand(49408, 768)
    return {key: made[last_name(key)] for key, _, _ in reference.entries}


def normalisation(detector: Detector) -> nn.Module:
    """Return what stands before the network; the identity where branches normalise for themselves."""
    return getattr(detector, "normalise", nn.Identity())


def without_normalisation(detector: Detector) -> Detector:
    """Return the detector with nothing before the network."""
    if hasattr(detector, "normalise"):
        detector.normalise = nn.Identity()
    return detector


CASES: dict[str, tuple[str, dict[str, Any], Callable[[Mapping[str, Tensor]], Any]]] = {
    "univfd": ("univfd", {}, dict),
    "clipdet_grip": ("clipdet", {}, lambda state: {"model": dict(state)}),
    "rine": ("rine", {}, dict),
    "d3": ("d3", {}, module_prefixed),
    "c2p_clip": ("c2p_clip", {}, dict),
    "effort": ("effort", {}, lambda state: {"state_dict": module_prefixed(state)}),
    "drct_clip": ("drct", {"backbone": "clip_vit_l14"}, dict),
    "drct_convb": ("drct", {"backbone": "convnext_base"}, dict),
    "community_forensics_384": (
        "community_forensics",
        {},
        lambda state: {"model": module_prefixed(state, "_orig_mod.")},
    ),
    "bfree": ("b_free", {}, lambda state: {"model": dict(state)}),
    "dda": ("dda", {}, lambda state: {"model": dict(state)}),
    "cospy_progan": ("co_spy", {}, dict),
    "fatformer": ("fatformer", {}, lambda state: {"model": dict(state)}),
}
"""Reference -> our detector, its settings, how the released file wraps the state dict."""

Note = Callable[..., None]

STATES = {"fatformer": fatformer_state}
"""Reference -> how to make its state dict, where the plain rule does not do."""


@pytest.mark.slow
def test_official_logits_of_aide(tmp_path: Path, note_parity: Note) -> None:
    reference = load_reference("aide")
    path = tmp_path / "official.pth"
    filters = {"hpf.hpf.weight": reference.constants["hpf.weight"]}
    torch.save({"model": synth_state(reference, initialised=filters)}, path)
    # Mapped, not read: file and network together are 7 GB.
    state = torch.load(path, weights_only=True, mmap=True)["model"]
    detector = create_detector("aide", backbone_weights=None)
    detector.load_official(state)
    del state
    path.unlink()
    for image in reference.facts["preprocessed"]:
        views = detector.views(network_input(detector, image)[None])
        assert preprocessed_difference(reference, image, detector.normalise(views)[0]) <= 1e-5
    formula = formula_difference(detector.network, reference)
    end_to_end = end_to_end_difference(detector, reference)
    note_parity(reference.name, formula=formula, end_to_end=end_to_end, atol=reference.atol)
    assert formula <= reference.atol
    assert end_to_end <= reference.atol


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_official_logits(name: str, tmp_path: Path, note_parity: Note) -> None:
    detector_name, settings, wrap = CASES[name]
    reference = load_reference(name)
    path = tmp_path / "official.pth"
    torch.save(wrap(STATES.get(name, official_state)(reference)), path)
    detector = create_detector(detector_name, weights=path, **settings)
    path.unlink()
    for image in reference.facts["preprocessed"]:
        entering = network_input(detector, image, normalisation(detector))
        assert preprocessed_difference(reference, image, entering) <= 1e-6
    end_to_end = end_to_end_difference(detector, reference)
    formula = formula_difference(without_normalisation(detector), reference)
    note_parity(reference.name, formula=formula, end_to_end=end_to_end, atol=reference.atol)
    assert formula <= reference.atol
    assert end_to_end <= reference.atol
