"""Prompt sets through `collect`: photographs are described, descriptions grow, and a toy generator draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.core.manifest import Manifest
from forgery_det.recipes.build import collect
from synth.chat_server import Answer, ChatServer, longer
from synth.generating import toy_generator
from synth.images import folder_sources, tree, write_images, write_recipe

pytest.importorskip("openai", reason="the extra `generate` is not installed")

NOUNS = ("a red fox", "a cup", "two boats", "an umbrella", "a lamp")


class Describer:
    """Names each new picture after the next noun, lengthens texts, and will not speak of cups at length."""

    def __init__(self) -> None:
        self._named: dict[str, str] = {}

    def __call__(self, body: Mapping[str, Any]) -> Answer:
        content = body["messages"][-1]["content"]
        if isinstance(content, str):
            return Answer("I'm sorry, I can't do that.") if "a cup" in content else longer(body)
        picture = content[0]["image_url"]["url"]
        return Answer(self._named.setdefault(picture, NOUNS[len(self._named) % len(NOUNS)]))


def _recipe(folder: Path, server: ChatServer, log: Path, levels: tuple[str, ...] = ("v0", "v1")) -> Path:
    write_images(folder / "images" / "real", 6, generated=False)
    real = next(one for one in folder_sources(folder / "images") if one["label"] == "real")
    by = {"kind": "openai_chat", "model": "m", "base_url": server.base_url, "concurrency": 1}
    source = {"kind": "prompt_captions", "images": real["id"], "by": by}
    captions = {"from": source, "levels": list(levels), "limit": 5, "expand": by}
    # The generating source stands first: the build finds out by itself what it needs before.
    toys = {
        "id": "toys", "kind": "generate", "licence": "CC0", "prompts": "captions", "levels": list(levels),
        "generator": toy_generator(log),
    }  # fmt: skip
    return write_recipe(folder / "recipe.yaml", [toys, real], prompt_sets={"captions": captions})


def test_real_images_and_the_fakes_of_their_captions_are_pairs_in_one_split(tmp_path: Path) -> None:
    log = tmp_path / "jobs.log"
    with ChatServer(Describer()) as server:
        recipe = _recipe(tmp_path, server, log)
        summary = collect(recipe, tmp_path / "out", cache=tmp_path / "cache")
        frame = Manifest.load(tmp_path / "out").frame
        fakes, photos = frame.filter(pl.col("label") == 1), frame.filter(pl.col("label") == 0)
        assert photos.height == 6
        assert photos["content_id"].null_count() == 0
        pairs = fakes.join(photos, on="content_id", suffix="_real")
        assert pairs.height == fakes.height
        assert pairs["source_id"].to_list() == pairs["source_id_real"].to_list()
        assert pairs["split"].to_list() == pairs["split_real"].to_list()
        short, long = (fakes.filter(pl.col("prompt_level") == level) for level in ("v0", "v1"))
        assert set(long["prompt_id"]) <= set(short["prompt_id"])
        assert all(fakes["prompt_words"] == fakes["prompt"].str.split(" ").list.len())
        prompts = pl.read_parquet(tmp_path / "out" / "prompts.parquet")
        assert Counter(prompts["prompt_level"]) == {"v0": 5, "v1": 5}
        refused = prompts.filter(pl.col("reason").is_not_null())
        assert refused["reason"].to_list() == ["refused"]
        assert refused["parent"].to_list() == ["a cup"]
        assert (short.height, long.height) == (5, 4)
        quarantine = pl.read_parquet(tmp_path / "out" / "quarantine.parquet")
        assert quarantine["source"].to_list() == ["prompts:captions"]
        assert summary.refused == {"refused": 1}
        # Again: no request, no job, no byte changed.
        asked, drawn, before = len(server.bodies), log.read_text(), tree(tmp_path / "out")
        assert asked == 5 + 5
        assert not collect(recipe, tmp_path / "out", cache=tmp_path / "cache").changed
        assert (len(server.bodies), log.read_text()) == (asked, drawn)
        assert tree(tmp_path / "out") == before


def test_a_recipe_that_drops_its_prompts_drops_the_table_and_keeps_the_answers(tmp_path: Path) -> None:
    log = tmp_path / "jobs.log"
    with ChatServer(Describer()) as server:
        recipe = _recipe(tmp_path, server, log)
        collect(recipe, tmp_path / "out", cache=tmp_path / "cache")
        asked = len(server.bodies)
        with_prompts = recipe.read_text()
        write_images(tmp_path / "images" / "fake", 3, generated=True)
        write_recipe(recipe, folder_sources(tmp_path / "images"))
        collect(recipe, tmp_path / "out", cache=tmp_path / "cache")
        assert not (tmp_path / "out" / "prompts.parquet").exists()
        recipe.write_text(with_prompts)
        collect(recipe, tmp_path / "out", cache=tmp_path / "cache")
        assert (tmp_path / "out" / "prompts.parquet").is_file()
        assert len(server.bodies) == asked
