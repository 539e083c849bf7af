"""A recipe over an API, from prompts to a dataset: refusals are data, one budget for all runs, no key anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from forgery_det.core.manifest import Manifest
from forgery_det.recipes.build import collect
from synth import image_server as faults
from synth.api_jobs import KEY
from synth.generating import prompt_recipe
from synth.image_server import ImageServer, image_of
from synth.images import tree

PROMPTS = ["a fox", "say no", "unsafe", "a house", "a ship", "a tree"]


def recipe(server: ImageServer, folder: Path, **source: Any) -> Path:
    generator = {
        "name": "toy-api", "kind": "openai_images", "model": "toy", "paradigm": "mllm", "decoder": "unknown",
        "base_url": f"{server.address}/v1", "usd_per_image": 0.5, "concurrency": 1,
    }  # fmt: skip
    return prompt_recipe(folder, PROMPTS, {"id": "toys", "prompts": "ideas", "generator": generator} | source)


def collected(path: Path, tmp_path: Path) -> tuple[set[str], dict[str, tuple[str, str]]]:
    """Return the prompts that became images, and key -> reason and detail of the quarantine."""
    collect(path, tmp_path / "out", cache=tmp_path / "cache")
    refused = pl.read_parquet(tmp_path / "out" / "quarantine.parquet")
    reasons = zip(refused["reason"], refused["detail"], strict=True)
    images = set(Manifest.load(tmp_path / "out").frame["prompt"])
    return images, dict(zip(refused["key"], reasons, strict=True))


def test_one_budget_for_all_runs_of_a_dataset(server: ImageServer, tmp_path: Path) -> None:
    server.plan("say no", faults.answers({"data": [], "message": "I would rather not"}))
    server.plan("unsafe", faults.moderation_blocked())
    images, refused = collected(recipe(server, tmp_path / "r", budget={"usd": 1.0}), tmp_path)
    assert images == {"a fox", "a house"}
    reasons = dict(refused.values())
    assert reasons["refused"] == "I would rather not"
    assert "safety system" in reasons["blocked"]
    assert reasons["not_generated"].startswith("Budget of 1 USD reached after 2 images (1.00 USD spent, the next may")
    asked = server.counts.total()
    assert asked == 4
    # The same command again may spend no more; with a larger budget it goes on where it stopped.
    assert collected(recipe(server, tmp_path / "r", budget={"usd": 1.0}), tmp_path)[0] == images
    assert server.counts.total() == asked
    images, refused = collected(recipe(server, tmp_path / "r", budget={"usd": 3.0}), tmp_path)
    assert images == set(PROMPTS) - {"say no", "unsafe"}
    assert {reason for reason, _ in refused.values()} == {"refused", "blocked"}
    assert server.counts.total() == len(PROMPTS)
    before = tree(tmp_path / "out")
    assert collected(recipe(server, tmp_path / "r", budget={"usd": 3.0}), tmp_path)[0] == images
    assert (server.counts.total(), tree(tmp_path / "out")) == (len(PROMPTS), before)
    notes = [json.loads(text) for text in pl.read_parquet(tmp_path / "out" / "origins.parquet")["notes"]]
    assert {note["provenance"]["response_id"] for note in notes} == {f"req-{prompt}" for prompt in images}
    assert {note["provenance"]["cost_usd"] for note in notes} == {0.5}
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert image_of("a fox") in written
    assert not [data for data in written if KEY.encode() in data]
