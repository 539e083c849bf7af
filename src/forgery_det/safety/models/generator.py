"""Generators of recipes as models that only generate: pipelines of diffusers, APIs of images, programs, unified models.

A job goes straight to the generator and its image straight to the judges. The job store, which keeps what recipes make
on the disk, has no part in it: what a model under test makes is kept as the run's vault decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.recipes.generate.job import Job, Outcome
from forgery_det.recipes.generate.registry import ResolvedGenerator, resolve_generator
from forgery_det.safety.models.base import ModelContext, UnifiedModel
from forgery_det.safety.models.patience import Patience
from forgery_det.safety.types import Answer, OutcomeKind

_OUTCOMES: Mapping[str, OutcomeKind] = {"refused": "refused", "blocked": "blocked", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class GeneratorModelParameters:
    """Keys of a model of the kind `generator`.

    Args:
        generator: As in a recipe: the id of a card, or a mapping with `name` and, for a generator without card, `kind`,
            `model` and `paradigm`, and the parameters of its kind.
    """

    generator: Any

    def __post_init__(self) -> None:
        given = {"name": self.generator} if isinstance(self.generator, str) else self.generator
        if isinstance(given, Mapping):
            # A date is no JSON value, and the day of a release decides no image.
            given = {name: value for name, value in given.items() if name != "release_date"}
        object.__setattr__(self, "generator", given)
        resolve_generator(given)


class GeneratorModel(UnifiedModel):
    """A generator of `recipes.generate`; see the module."""

    Parameters = GeneratorModelParameters
    generates = True

    def __init__(self, parameters: GeneratorModelParameters, context: ModelContext) -> None:
        resolved = resolve_generator(parameters.generator)
        if context.paradigm == "unknown":
            context = dataclasses.replace(context, paradigm=resolved.fields["paradigm"])
        super().__init__(parameters, context)
        self._drawer = Drawer(resolved, context)
        self.max_concurrency = self._drawer.max_concurrency

    def version(self) -> str:
        """Return model and revision."""
        return self._drawer.version()

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the images."""
        return self._drawer.identity()

    def generate(self, text: str, images: Sequence[bytes] = (), *, seed: int) -> Answer:
        """Return the image that the generator makes."""
        return self._drawer.draw(text, images, seed)

    def close(self) -> None:
        """Let go of the loaded pipeline, or end the program."""
        self._drawer.close()


class Drawer:
    """Asks a generator for one image at a time; what it loads stays until `close`.

    Args:
        resolved: The generator.
        context: The model that it belongs to.

    Raises:
        ConfigError: It paints in masked parts, which no prompt set gives.
    """

    def __init__(self, resolved: ResolvedGenerator, context: ModelContext) -> None:
        self._spec = resolved.spec(Path(context.folder), context.cache)
        self._generator = self._spec.create()
        self._generator.keeps_loaded = True
        if self._generator.needs_mask or (not self._generator.needs_prompt and self._generator.needs_image):
            raise ConfigError(
                f"Expected a generator that draws what a prompt says, got {resolved.name!r} of the kind "
                f"{resolved.kind!r}, which reworks images (model {context.name!r})."
            )
        # A generator behind an API shares nothing between requests; the others have one model in one place.
        self._is_api = self._generator.keeps_budget
        self.max_concurrency = self._generator.max_concurrency if self._is_api else 1
        self._patience = Patience(context.name)
        self._lock = Lock()

    def version(self) -> str:
        """Return model and revision."""
        context = self._spec.context
        return f"{self._spec.kind} {context.model}@{self._generator.model_version() or 'unnamed'}"

    def identity(self) -> dict[str, Any]:
        """Return what decides the images, as JSON values."""
        job = self._job("", (), 0).to_json()
        return {name: value for name, value in job.items() if name not in ("prompt", "seed", "image_sha256")}

    def draw(self, text: str, images: Sequence[bytes], seed: int) -> Answer:
        """Return the image for a text, or why there is none.

        Raises:
            SourceError: The model cannot be loaded or reached, or fails one request after another.
            ConfigError: The key or the address is wrong.
        """
        if unfit := self._unfit(images):
            return Answer("failed", "image", detail=unfit)
        job = self._job(text, images, seed)
        files = {sha256_bytes(image): image for image in images}
        if self._is_api:
            ((_, outcome),) = self._spec.create().run([job], files.__getitem__)
        else:
            with self._lock:
                ((_, outcome),) = self._generator.run([job], files.__getitem__)
        return self._patience.note(self._answer(outcome))

    def close(self) -> None:
        """Let go of what was loaded."""
        with self._lock:
            self._generator.release()

    def _unfit(self, images: Sequence[bytes]) -> str:
        name = self._spec.context.name
        if len(images) > 1:
            return f"Expected at most one picture for generator {name!r}, got {len(images)}."
        if images and not self._generator.takes_image:
            return f"Expected a prompt without picture, which generator {name!r} has no use for, got one with."
        if not images and self._generator.needs_image:
            return f"Expected a prompt with a picture, which generator {name!r} reworks, got one without."
        return ""

    def _job(self, text: str, images: Sequence[bytes], seed: int) -> Job:
        generator, context = self._generator, self._spec.context
        return Job(
            context.name, self._spec.kind, context.model, generator.model_version(), text, generator.negative_prompt(),
            seed, generator.job_parameters(), image_sha256=sha256_bytes(images[0]) if images else None,
        )  # fmt: skip

    def _answer(self, outcome: Outcome) -> Answer:
        facts = {"model": self._spec.context.model, **outcome.provenance}
        if outcome.kind == "image":
            return Answer("made", "image", image=outcome.data, provenance=facts)
        return Answer(_OUTCOMES[outcome.kind], "image", detail=outcome.detail, provenance=facts)
