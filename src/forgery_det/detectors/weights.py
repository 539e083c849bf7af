"""Read weights files safely, and load them strictly.

Two rules. A file is never unpickled freely: `torch.load(weights_only=True)` or safetensors, because a pickle can run
any code; a file that needs more is refused with the way to convert it. And nothing is loaded in part: a key that is
missing or unexpected, or a shape that differs, is an error that lists the first of each, because a checkpoint that fits
by half gives plausible and wrong scores.
"""

from __future__ import annotations

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from forgery_det.core.errors import WeightsError
from forgery_det.detectors.hub import local_file

NESTS = ("state_dict", "model_state_dict", "model", "net", "netC", "module", "params")
"""Keys under which released files keep their state dict, in the order in which they are looked for."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put before every key."""

_LISTED = 3
_DAMAGE = (SafetensorError, EOFError, OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
"""What the readers have been seen to raise on cut, flipped or random bytes."""
_CONVERT = (
    "To convert it: in a throw-away container without network or secrets, run "
    "`state = torch.load(PATH, weights_only=False)`, take the state dict out of it, and write it with "
    "`safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, 'new.safetensors')`."
)

_TORCHSCRIPT = (
    "Expected a file of tensors and plain values, got a TorchScript archive, which holds code, as OpenAI's own files "
    "of CLIP do ({path}). To convert it: in a throw-away container without network or secrets, run "
    "`state = torch.jit.load(PATH, map_location='cpu').state_dict()`, and write it with "
    "`safetensors.torch.save_file({{name: tensor.contiguous() for name, tensor in state.items()}}, 'new.safetensors')`."
)


def read_file(source: str | Path) -> Any:
    """Return what a weights file holds, on the CPU: safetensors, or a torch file read with `weights_only=True`.

    Args:
        source: A path, or an address `hf://owner/name[@revision]/path/of/file`, which is fetched first.

    Raises:
        WeightsError: There is no such file, it cannot be fetched, it is damaged, or it needs arbitrary unpickling.
    """
    path = local_file(source)
    if not path.is_file():
        raise WeightsError(f"Expected a weights file, got {'a folder' if path.is_dir() else 'nothing'} at {path}.")
    try:
        if _is_safetensors(path):
            return load_file(path)
        if _is_torchscript(path):
            raise WeightsError(_TORCHSCRIPT.format(path=path))
        with warnings.catch_warnings():
            # About pickles that torch did not write; those that cannot be read are errors below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            # Options of a training script: plain attributes, no code. Many authors leave them in their files.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch tells a forbidden import from a damaged pickle by the text alone, and its text advises unsafe loading.
        if "global" in str(error).lower():
            raise WeightsError(_refusal(path)) from error
        raise WeightsError(_damaged(path, "its contents are not those of a torch file")) from error
    except _DAMAGE as error:
        raise WeightsError(_damaged(path, f"{type(error).__name__}: {error}".splitlines()[0])) from error


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Return the state dict in a weights file: nests (`NESTS`) and wrappers' prefixes (`WRAPPERS`) taken off.

    Args:
        source: A path or an `hf://` address.

    Raises:
        WeightsError: As `read_file`; or the file holds no state dict.
    """
    return unwrap(read_file(source), str(source))


def unwrap(value: Any, where: str) -> dict[str, Tensor]:
    """Return the state dict inside what a weights file held.

    Args:
        value: A state dict, or dictionaries around one.
        where: Named in errors.

    Raises:
        WeightsError: There is no state dict.

    Example:
        >>> unwrap({"epoch": 3, "model": {"module.fc.bias": torch.zeros(1)}}, "x.pth")
        {'fc.bias': tensor([0.])}
    """
    while isinstance(value, Mapping):
        if value and all(isinstance(entry, Tensor) for entry in value.values()):
            return _without_wrappers(dict(value))
        nest = next((key for key in NESTS if isinstance(value.get(key), Mapping)), None)
        if nest is None:
            keys = ", ".join(map(repr, list(value)[:8]))
            raise WeightsError(
                f"Expected a state dict (names to tensors), alone or under one of {', '.join(NESTS)}, "
                f"got a dictionary with the keys [{keys}] ({where})."
            )
        value = value[nest]
    raise WeightsError(f"Expected a state dict (names to tensors), got {type(value).__name__} ({where}).")


def load_strict(module: nn.Module, state: Mapping[str, Tensor], where: str = "") -> None:
    """Copy `state` into `module`, all of it or nothing.

    Args:
        module: What is filled.
        state: Names to tensors; any floating precision, the module's own is kept.
        where: Named in errors; empty where the caller names it.

    Raises:
        WeightsError: Keys are missing or unexpected, shapes differ, or a tensor holds NaN or infinity.
    """
    own = module.state_dict()
    problems = [
        _listed("missing", [key for key in own if key not in state]),
        _listed("unexpected", [key for key in state if key not in own]),
        _listed(
            "of another shape",
            [
                f"{key} (expected {tuple(own[key].shape)}, got {tuple(state[key].shape)})"
                for key in own
                if key in state and own[key].shape != state[key].shape
            ],
        ),
        _listed("with NaN or infinity", [key for key in own if key in state and not bool(state[key].isfinite().all())]),
    ]
    found = [problem for problem in problems if problem]
    if found:
        raise WeightsError(
            f"Expected weights that fit {type(module).__name__} with its {len(own)} tensors, got keys "
            f"{'; '.join(found)}{f' ({where})' if where else ''}. "
            "Check that the settings are those the weights were made with."
        )
    module.load_state_dict(dict(state))


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries whose names start with `prefix`, that taken off.

    Example:
        >>> without_prefix({"a.x": torch.zeros(1), "b.x": torch.zeros(1)}, "a.")
        {'x': tensor([0.])}
    """
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for _ in WRAPPERS:
        for prefix in WRAPPERS:
            if all(name.startswith(prefix) for name in state):
                state = without_prefix(state, prefix)
    return state


def _listed(what: str, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{what}: {', '.join(keys[:_LISTED])}{more}"


def _is_safetensors(path: Path) -> bool:
    # Eight bytes give the length of the header, a JSON object; the signature of a zip or pickle is a huge length.
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _refusal(path: Path) -> str:
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (RuntimeError, ValueError, pickle.UnpicklingError):  # only torch's zip format can be listed
        names = []
    asked = f" ({', '.join(names[:_LISTED])})" if names else ""
    return (
        f"Expected a file of tensors and plain values, got one that asks to import Python objects{asked}, which could "
        f"run any code ({path}). {_CONVERT}"
    )


def _damaged(path: Path, detail: str) -> str:
    return f"Expected a whole weights file (torch or safetensors), got one that cannot be read: {detail} ({path})."
