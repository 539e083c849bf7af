"""Tiny generators, built once a session; a test that needs one pays for its build only if it is the first."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from forgery_det.recipes.generate.base import Generator
from forgery_det.recipes.generate.job import Job
from forgery_det.recipes.generate.registry import resolve_generator

TinyFolder = Callable[[str], Path]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyFolder:
    """`tiny("sdxl")`: the folder of a tiny model of `synth.tiny_pipelines`."""

    @cache
    def build(name: str) -> Path:
        from synth import tiny_pipelines

        return getattr(tiny_pipelines, f"save_{name}")(tmp_path_factory.mktemp(name) / name)  # type: ignore[no-any-return]

    return build


@pytest.fixture
def generator(tiny: TinyFolder, tmp_path: Path) -> Callable[..., Generator]:
    """`generator("sdxl", "diffusers", steps=2)`: the generator of a tiny model."""

    def build(name: str, kind: str, **keys: Any) -> Generator:
        given = {"name": name, "kind": kind, "model": str(tiny(name)), "paradigm": "diffusion", "dtype": "float32"}
        return resolve_generator(given | keys).spec(tmp_path, tmp_path / "cache").create()

    return build


@pytest.fixture
def job() -> Callable[..., Job]:
    """`job(generator, "a fox", seed=1)`: a job for a generator."""

    def build(generator: Generator, prompt: str | None, seed: int = 1, **inputs: Any) -> Job:
        context = generator.context
        return Job(
            context.name, "any", context.model, generator.model_version(), prompt, generator.negative_prompt(), seed,
            generator.job_parameters(), **inputs,
        )  # fmt: skip

    return build
