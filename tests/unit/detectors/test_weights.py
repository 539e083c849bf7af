from __future__ import annotations

import argparse
import pathlib
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from forgery_det.core.errors import WeightsError
from forgery_det.detectors.weights import NESTS, load_strict, read_weights, unwrap

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, -1.0])}
RAN: list[str] = []


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (RAN.append, ("code from the file",))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)


def same(state) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read_whatever_their_name(tmp_path, suffix, zipped):
    torch.save(STATE, tmp_path / f"x{suffix}", _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path / f"x{suffix}"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_safetensors_are_read_whatever_their_name(tmp_path, suffix):
    save_file(STATE, tmp_path / f"x{suffix}")
    assert same(read_weights(tmp_path / f"x{suffix}"))


@pytest.mark.parametrize("nest", NESTS)
def test_a_nested_state_dict_is_found(tmp_path, nest):
    torch.save({"epoch": 3, nest: OrderedDict(STATE), "optimizer": {"state": {}}}, tmp_path / "x.pth")
    assert same(read_weights(tmp_path / "x.pth"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(prefix):
    assert same(unwrap({"model": {"state_dict": {prefix + key: value for key, value in STATE.items()}}}, "x"))


def test_a_prefix_that_only_some_keys_have_belongs_to_the_network():
    state = {"module.weight": torch.zeros(1), "head.weight": torch.zeros(1)}
    assert unwrap(state, "x").keys() == state.keys()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("content", [{"model": STATE, "hook": Hostile()}, Hostile(), Network()])
def test_a_file_that_could_run_code_is_refused_and_does_not(tmp_path, content, zipped):
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError) as caught:
        read_weights(tmp_path / "x.pth")
    text = str(caught.value)
    assert "asks to import Python objects" in text
    assert "safetensors.torch.save_file" in text
    assert str(tmp_path / "x.pth") in text
    assert RAN == []


def test_the_refusal_names_what_the_file_asked_for(tmp_path):
    torch.save({"model": STATE, "opt": pathlib.PurePosixPath("a")}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"import Python objects \(pathlib\.PurePosixPath\)"):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_options_of_a_training_script_are_no_code(tmp_path, zipped):
    content = {"model": STATE, "epoch": 3, "args": argparse.Namespace(lr=1, data=["a"])}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    torch.testing.assert_close(read_weights(tmp_path / "x.pth"), STATE)


def test_an_archive_of_code_is_refused_with_the_way_to_convert_it(tmp_path):
    # torch.jit.save warns that it is deprecated; the published files of CLIP are what it writes.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(3, 2)), tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"TorchScript archive(.|\n)*torch\.jit\.load\(PATH(.|\n)*save_file\({name"):
        read_weights(tmp_path / "x.pt")


def damaged_files(folder: Path) -> dict[str, bytes]:
    torch.save(STATE, folder / "zip")
    torch.save(STATE, folder / "legacy", _use_new_zipfile_serialization=False)
    save_file(STATE, folder / "safe")
    whole = {name: (folder / name).read_bytes() for name in ("zip", "legacy", "safe")}
    flipped = bytearray(whole["zip"])
    flipped[100:140] = b"\xff" * 40
    return {
        "empty": b"",
        "page": b"<!DOCTYPE html><title>404</title>",
        "text_like_safetensors": b"abcdefgh{ not a header",
        "pickle": pickle.dumps({"fc": 1}, protocol=2),
        "random": np.random.default_rng(0).bytes(500),
        "flipped": bytes(flipped),
        **{f"cut_{name}": data[: len(data) // 2] for name, data in whole.items()},
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("empty", "page", "text_like_safetensors", "pickle", "random", "flipped"),
        *("cut_zip", "cut_legacy", "cut_safe"),
    ],
)
def test_a_damaged_file_is_a_weights_error(tmp_path, kind):
    path = tmp_path / "x.pth"
    path.write_bytes(damaged_files(tmp_path)[kind])
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert "weights_only=False" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_not_there_is_a_weights_error(tmp_path):
    with pytest.raises(WeightsError, match="Expected a weights file, got nothing at"):
        read_weights(tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="Expected a weights file, got a folder at"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"weights": {"a": torch.zeros(1)}}, r"got a dictionary with the keys \['weights'\]"),
        ({}, r"got a dictionary with the keys \[\]"),
        ([torch.zeros(1)], "got list"),
        ({"model": {"a": 1}}, r"got a dictionary with the keys \['a'\]"),
    ],
)
def test_a_file_without_a_state_dict_is_explained(tmp_path, content, text):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=text):
        read_weights(tmp_path / "x.pth")


def test_load_strict_fills_everything():
    network = Network()
    load_strict(network, STATE)
    assert same(network.state_dict())


def test_half_precision_files_fill_a_float_module():
    network = Network()
    load_strict(network, {key: value.half() for key, value in STATE.items()})
    assert network.fc.weight.dtype == torch.float32
    assert same(network.state_dict())


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"fc.weight": STATE["fc.weight"]}, r"got keys missing: fc\.bias \(x\.pth\)"),
        (STATE | {"extra": torch.zeros(1)}, r"got keys unexpected: extra \(x\.pth\)"),
        (STATE | {f"e{k}": torch.zeros(1) for k in range(5)}, "unexpected: e0, e1, e2 and 2 more"),
        (STATE | {"fc.bias": torch.zeros(3)}, r"of another shape: fc\.bias \(expected \(2,\), got \(3,\)\)"),
        (STATE | {"fc.bias": torch.tensor([1.0, torch.nan])}, r"with NaN or infinity: fc\.bias"),
        (
            {"fc.weight": torch.zeros(1, 3), "x": torch.zeros(1)},
            r"missing: fc\.bias; unexpected: x; of another shape: fc",
        ),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(state, text):
    network = Network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=text):
        load_strict(network, state, "x.pth")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
