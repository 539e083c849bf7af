from __future__ import annotations

import pytest
import torch
from reference_weights import Reference, list_references, load_reference, synth, synth_state


@pytest.mark.parametrize("name", list_references())
def test_the_weights_rule_gives_the_checksums_of_the_golden(name: str) -> None:
    reference = load_reference(name)
    made = {key for key, shape, dtype in reference.entries if shape and dtype == "float32"} - set(reference.kept)
    checked = {key: value for key, value in reference.checksum.items() if key in made}
    assert len(checked) >= 3
    state = synth_state(reference, keys=checked.__contains__)
    for key, expected in checked.items():
        assert float(state[key].double().sum()) == pytest.approx(expected, rel=1e-6, abs=1e-6), key


@pytest.mark.parametrize("name", list_references())
def test_stored_constants_have_the_checksum_of_the_golden(name: str) -> None:
    reference = load_reference(name)
    for key in reference.checksum.keys() & reference.constants.keys():
        assert float(reference.constants[key].double().sum()) == pytest.approx(reference.checksum[key], abs=1e-6)


def test_another_seed_gives_other_weights() -> None:
    assert not torch.equal(synth("conv1.weight", (4, 3), 1234, ()), synth("conv1.weight", (4, 3), 1235, ()))


def test_a_shared_tensor_has_the_value_of_its_later_name() -> None:
    reference = load_reference("fatformer")
    names = ("clip_model.ln_final.weight", "text_encoder.ln_final.weight", "clip_model.visual.ln_pre.weight")
    state = synth_state(reference, keys=names.__contains__)
    assert torch.equal(state[names[0]], synth(names[1], (768,), reference.seed, reference.gains))
    assert torch.equal(state[names[0]], state[names[1]])
    assert torch.equal(state[names[2]], synth("image_encoder.ln_pre.weight", (1024,), reference.seed, reference.gains))


def test_a_tensor_that_the_official_code_fills_must_be_given() -> None:
    reference = Reference("x", 1, (), ("hpf.weight",), (("hpf.weight", (1, 2), "float32"),), {}, {}, 1e-5, {})
    with pytest.raises(KeyError, match=r"hpf\.weight"):
        synth_state(reference)
    assert synth_state(reference, initialised={"hpf.weight": torch.ones(1, 2)})["hpf.weight"].sum() == 2
