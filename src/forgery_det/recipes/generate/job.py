"""A job is one image to be made; an outcome is what became of it.

A job's id is the sha256 of everything that decides its pixels:

    job_id = sha256(canonical_json([generator, kind, model, model_version, prompt, negative_prompt, seed, parameters,
                                    image_sha256, mask_sha256]))

So a job that was done once is found again by any recipe on the machine, and a changed parameter makes a new job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from forgery_det.core.artefacts import canonical_json, sha256_bytes

OutcomeKind = Literal["image", "refused", "blocked", "failed"]
"""`refused`: the model said no. `blocked`: a safety filter did. `failed`: gave up; a later run tries it again."""

OUTCOME_KINDS: tuple[str, ...] = get_args(OutcomeKind)
FINAL_KINDS = frozenset(OUTCOME_KINDS) - {"failed"}
"""Outcomes that are never asked for again."""

MAX_SEED = 2**31 - 1
"""Seeds lie in [0, MAX_SEED]: what every library and API takes."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Job:
    """One image to be made.

    Args:
        generator: Registry id; the manifest's `generator`.
        kind: Kind of generator, such as `diffusers`.
        model: Hub id, path or API name.
        model_version: Revision or snapshot that is asked for; empty where none is named.
        prompt: The text, None for generators that take none.
        negative_prompt: What must not be in the image.
        seed: In [0, MAX_SEED].
        parameters: Everything else that decides the pixels, as JSON values.
        image_sha256: The input image of image-to-image, inpainting and reconstruction.
        mask_sha256: The mask of inpainting; white is painted anew.
        fields: Item fields for the manifest; they do not enter the id.
        notes: Facts for `origins.parquet`; they do not enter the id.

    Example:
        >>> from dataclasses import replace
        >>> job = Job("sd15", "diffusers", "owner/name", "", "a fox", None, 7, {"steps": 2})
        >>> replace(job, fields={"label": 1}).job_id == job.job_id
        True
        >>> replace(job, parameters={"steps": 3}).job_id == job.job_id
        False
    """

    generator: str
    kind: str
    model: str
    model_version: str
    prompt: str | None
    negative_prompt: str | None
    seed: int
    parameters: Mapping[str, Any]
    image_sha256: str | None = None
    mask_sha256: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def job_id(self) -> str:
        """Return the id: 64 hexadecimal digits."""
        return sha256_bytes(canonical_json([_VERSION, self.to_json()]).encode("utf-8"))

    def to_json(self) -> dict[str, Any]:
        """Return the deciding parts as JSON values."""
        return {
            "generator": self.generator,
            "kind": self.kind,
            "model": self.model,
            "model_version": self.model_version,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "parameters": dict(self.parameters),
            "image_sha256": self.image_sha256,
            "mask_sha256": self.mask_sha256,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Args:
        kind: `image`, `refused`, `blocked` or `failed`.
        data: The encoded file as it was received, or the PNG of the pixels; None unless `kind` is `image`.
        detail: A sentence for people; empty for an image.
        provenance: JSON values: the request (never a key), response id, model version that answered, `cost_usd`,
            `duration_s`, seed used, scheduler, notes found in the file.
    """

    kind: OutcomeKind
    data: bytes | None = None
    detail: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Generators are ours: a wrong outcome is a defect, not a user's mistake.
        assert self.kind in OUTCOME_KINDS, self.kind
        assert (self.data is not None) == (self.kind == "image"), "data goes with images, and only with them"

    @property
    def is_final(self) -> bool:
        """Tell whether the job is never asked for again."""
        return self.kind in FINAL_KINDS


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a seed in [0, MAX_SEED] that depends on a base seed and names alone, not on any order.

    Example:
        >>> derive_seed(0, "prompt-a", 0) == derive_seed(0, "prompt-a", 0) != derive_seed(1, "prompt-a", 0)
        True
    """
    text = canonical_json([seed, *names])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:4], "big") & MAX_SEED
