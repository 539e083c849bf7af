"""A server that speaks the image APIs, a clock that does not wait, and generators that use both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forgery_det.recipes.generate.api.client import ApiGenerator
from forgery_det.recipes.generate.api.google_images import GoogleImagesGenerator, GoogleImagesParameters
from forgery_det.recipes.generate.api.openai_images import OpenAIImagesGenerator, OpenAIImagesParameters
from forgery_det.recipes.generate.api.seedream import SeedreamGenerator, SeedreamParameters
from forgery_det.recipes.generate.base import GeneratorContext
from synth.api_jobs import KEY, FakeClock, Make
from synth.image_server import ImageServer, running_server

KINDS: dict[str, tuple[Any, Any, str, str]] = {
    "openai": (OpenAIImagesGenerator, OpenAIImagesParameters, "/v1", "gpt-image-x"),
    "google": (GoogleImagesGenerator, GoogleImagesParameters, "", "gemini-x-image"),
    "ark": (SeedreamGenerator, SeedreamParameters, "/api/v3", "seedream-4-0"),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageServer]:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "ARK_API_KEY"):
        monkeypatch.setenv(name, KEY)
    for name in ("GOOGLE_API_KEY", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with running_server() as running:
        yield running


@pytest.fixture
def make(server: ImageServer, tmp_path: Path) -> Make:
    """Build a generator of a protocol: `make("openai", model=..., price=..., budget=..., concurrency=2)`."""

    def build(protocol: str = "openai", **given: Any) -> ApiGenerator:
        kind, parameters, path, model = KINDS[protocol]
        context = GeneratorContext(
            "toy", given.pop("model", model), None, tmp_path, tmp_path / "cache", given.pop("price", {}),
            budget=given.pop("budget", None),
        )  # fmt: skip
        built: ApiGenerator = kind(
            parameters(**{"base_url": server.address + path, "timeout_s": 10.0, **given}), context
        )
        built.clock = FakeClock()
        return built

    return build
