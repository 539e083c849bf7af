"""`bundle.json`: all that a runtime, a page and a reader need to know of the model (`docs/export.md` lists the fields).

No time stamp is in it, so equal inputs give an equal file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forgery_det._version import __version__
from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError
from forgery_det.core.image_facts import DecodeLimits
from forgery_det.core.manifest import Manifest
from forgery_det.detectors.base import Detector
from forgery_det.detectors.checkpoint import CheckpointFacts
from forgery_det.export.graph import INPUT_NAME, OUTPUT_NAMES, InputForm
from forgery_det.export.held_out import HeldOut
from forgery_det.export.job import WrittenFormat
from forgery_det.export.parity import Answers
from forgery_det.metrics.conformal import fit_abstention

DOCUMENT_NAME, FORMAT = "bundle.json", 1
DEFAULT_POINT = "fpr_5pct"
ALPHA = 0.1
"""Chance, for each class, that the answer with abstention leaves out the truth."""

HEATMAP_CELLS = 8
_PREFERRED = ("onnx", "openvino", "onnx_int8")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported, and from what.

    Args:
        detector: Loaded.
        facts: From its checkpoint.
        checkpoint_sha256: Of the checkpoint file.
        manifest: The dataset on which parity was measured.
        images: Rows of it that were measured.
        form: What the graph takes.
        licence: Of the model, in the words of whoever exports it.
        held_out: What a run says, None without one.
    """

    detector: Detector
    facts: CheckpointFacts
    checkpoint_sha256: str
    manifest: Manifest
    images: Manifest
    form: InputForm
    licence: str
    held_out: HeldOut | None


def bundle_document(
    subject: Subject, written: Mapping[str, WrittenFormat], eager: Answers, bundle: Path
) -> dict[str, Any]:
    """Return the content of `bundle.json`.

    Args:
        subject: What is exported.
        written: Format name to what was written.
        eager: The detector's answers on `val`, for the abstention.
        bundle: Folder of the bundle.
    """
    facts, form, card = subject.facts, subject.form, subject.detector.card
    held_out = subject.held_out
    return {
        "format": FORMAT,
        "name": facts.detector,
        "version": tensor_version(subject.detector.state_dict()),
        "tool_version": __version__,
        "created_from": {
            "checkpoint_sha256": subject.checkpoint_sha256,
            "manifest_hash": subject.manifest.digest(),
            "dataset": subject.manifest.name,
        },
        "detector": {**asdict(card), "arguments": _plain(facts.arguments)},
        "labels": {"0": "real", "1": "generated"},
        "higher_logit": "generated",
        "preprocess": subject.detector.preprocess.to_json(),
        "max_pixels": DecodeLimits().max_pixels,
        "input": {
            "name": INPUT_NAME, "shape": list(form.shape), "dynamic_size": form.dynamic_size, "views": form.views,
        },
        "outputs": list(OUTPUT_NAMES),
        "temperature": facts.temperature,
        "operating_points": None if facts.operating_points is None else dict(facts.operating_points),
        "default_operating_point": None if facts.operating_points is None else DEFAULT_POINT,
        "abstention": abstention(eager),
        "formats": {name: _format(entry, bundle) for name, entry in written.items()},
        "default_format": next((name for name in _PREFERRED if name in written), next(iter(written))),
        # Covering a part of the picture moves which patches a detector of several views is shown at all.
        "heatmap": None if form.has_views else {"method": "occlusion", "cells": HEATMAP_CELLS},
        "training": _plain(facts.training),
        "licence": subject.licence,
        "held_out": None if held_out is None else [dict(row) for row in held_out.results],
        "checkpoint": None,
    }  # fmt: skip


def abstention(eager: Answers, alpha: float = ALPHA) -> dict[str, float] | None:
    """Return `{alpha, low, high}`: a logit strictly between the bounds is "uncertain"; None when `val` is too small.

    The bounds are those of `metrics.conformal`, moved by one step of float64 so that "strictly between" means the same
    images as its closed intervals do.

    Example:
        >>> ids = tuple("abcdefghijklmnopqrst")
        >>> label_N, logit_N = np.repeat([0, 1], 10), np.r_[np.arange(10.0), np.arange(5.0, 15.0)]
        >>> found = abstention(Answers(ids, ids, label_N, logit_N, logit_N))
        >>> round(found["low"], 6), round(found["high"], 6)
        (5.0, 9.0)
    """
    fitted = fit_abstention(eager.label_N, eager.logit_N, alpha)
    first, last = fitted.generated_from, fitted.real_up_to
    if not (math.isfinite(first) and math.isfinite(last)):
        return None
    if first <= last:  # both classes are in the answer from `first` to `last`, these included
        first, last = float(np.nextafter(first, -np.inf)), float(np.nextafter(last, np.inf))
    return {"alpha": alpha, "low": min(first, last), "high": max(first, last)}


def tensor_version(state: Mapping[str, Tensor]) -> str:
    """Return twelve hexadecimal digits over names, types, shapes and values of all tensors.

    Example:
        >>> len(tensor_version({"a": torch.zeros(2)}))
        12
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def check_operating_points(facts: CheckpointFacts) -> None:
    """Refuse thresholds that JSON cannot hold.

    Raises:
        ConfigError: A threshold is infinite.
    """
    for name, threshold in (facts.operating_points or {}).items():
        if not math.isfinite(threshold):
            raise ConfigError(
                f"Expected finite operating points, got {name} = {threshold}. Calibrate the checkpoint on a `val` with "
                "more images."
            )


def _format(written: WrittenFormat, bundle: Path) -> dict[str, Any]:
    files = [written.file, *written.others]
    entries = [
        {"file": path.relative_to(bundle).as_posix(), "sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in files
    ]
    more = {"more_files": entries[1:]} if written.others else {}
    return {**entries[0], "runtime": written.runtime, "precision": written.precision, **more, **written.facts}


def _plain(value: Any) -> Any:
    """Return tuples as lists, so that what is written equals what is read back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
