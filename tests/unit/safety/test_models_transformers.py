"""A tiny Janus with random weights reads, draws, and walks all four pathways through `measure`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.recipes.generate import transformers_unified
from forgery_det.recipes.schema import parse_section
from forgery_det.safety.measure import measure
from forgery_det.safety.models.base import ModelContext
from forgery_det.safety.models.generator import GeneratorModel, GeneratorModelParameters
from forgery_det.safety.models.transformers import TransformersModel, TransformersModelParameters
from synth.images import smooth_image

PICTURE = encode_image(smooth_image(0, 40, 30), "png", None)
TINY = {"dtype": "float32", "device": "cpu", "max_tokens": 12, "guidance": 3.0}


@pytest.fixture(scope="session")
def tiny_unified(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_unified("janus")`: the folder of a tiny model."""

    @cache
    def build(name: str) -> Path:
        from synth import tiny_pipelines

        return getattr(tiny_pipelines, f"save_{name}")(tmp_path_factory.mktemp(name) / name)  # type: ignore[no-any-return]

    return build


def build(model: Path | str, **changes: Any) -> TransformersModel:
    given = {"model": str(model), **TINY} | changes
    parameters = parse_section(TransformersModelParameters, given, "plan.yaml: models[0]")
    return TransformersModel(parameters, ModelContext("tiny", "mllm", Path(), Path()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "keys"), [("janus", {}), ("emu3", {"image_area_px": 32 * 32})])
def test_one_set_of_weights_reads_and_draws(
    tiny_unified: Callable[[str], Path], name: str, keys: dict[str, Any]
) -> None:
    import torch

    model = build(tiny_unified(name), **keys)
    state = torch.random.get_rng_state()
    said = [model.understand((PICTURE,), "a red fox", seed=seed) for seed in (1, 1, 2)]
    assert [answer.outcome for answer in said] == ["made"] * 3, said
    assert said[0].text == said[1].text != said[2].text
    other = model.understand((encode_image(smooth_image(5, 40, 30), "png", None),), "a red fox", seed=1)
    assert other.text != said[0].text  # the picture is seen
    assert model.understand((), "a red fox", seed=1).outcome == "made"
    drawn = [model.generate("a red fox", seed=seed) for seed in (1, 1, 2)]
    assert [answer.outcome for answer in drawn] == ["made"] * 3, drawn
    assert drawn[0].image == drawn[1].image != drawn[2].image
    assert decode_image(drawn[0].image or b"").image_HWC.shape[2] == 3
    assert drawn[0].provenance["cost_usd"] == 0.0
    assert torch.equal(torch.random.get_rng_state(), state)
    # Loaded anew, it says the same.
    model.close()
    assert model.understand((PICTURE,), "a red fox", seed=1).text == said[0].text


@pytest.mark.slow
def test_weights_that_only_read(tiny_unified: Callable[[str], Path]) -> None:
    whole, reader = build(tiny_unified("janus")), build(tiny_unified("janus"), draws=False)
    assert whole.can_walk("generation_understanding")
    assert not reader.can_walk("generation_understanding")
    assert reader.understand((PICTURE,), "a fox", seed=1).text == whole.understand((PICTURE,), "a fox", seed=1).text
    assert "draws nothing from" in whole.generate("a fox", (PICTURE,), seed=1).detail


@pytest.mark.slow
def test_a_chat_template_has_places_for_pictures(tiny_unified: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_unified("janus"), tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        "<image_placeholder>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %} of{% endif %}"
    )
    model = build(folder)
    counts = {}
    for n_pictures in (0, 1, 2):
        answer = model.understand((PICTURE,) * n_pictures, "a red fox", seed=4)
        assert answer.outcome == "made", answer
        counts[n_pictures] = answer.provenance["usage"]["prompt_tokens"]
    # 64 tokens a picture, between one that begins and one that ends it; and "a red fox of".
    assert counts == {0: 4, 1: 70, 2: 136}
    assert model.generate("a red fox", seed=4).outcome == "made"


@pytest.mark.slow
def test_all_four_pathways_end_to_end(tiny_unified: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("prompt_id,text,category\np0,a red fox,animal\np1,the house in snow,place\n")
    pathways = ["generation", "understanding", "understanding_generation", "generation_understanding"]
    model = {"name": "janus", "kind": "transformers", "paradigm": "mllm", "model": str(tiny_unified("janus")), **TINY}
    plan = {
        "study": "reciprocity", "prompts": {"path": "prompts.csv", "benchmark": "mine"}, "models": [model],
        "judges": [{"name": "marker", "kind": "planted"}], "pathways": pathways, "walks_per_prompt": 2,
        "n_replicates": 50, "corruption": {"use": False}, "store": "none",
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    summary = measure(tmp_path / "plan.yaml", tmp_path / "run")
    assert (summary.n_walks, summary.n_done, summary.n_failed, summary.stopped) == (16, 16, 0, "")
    items = pl.read_parquet(tmp_path / "run" / "items.parquet")
    kinds = {
        pathway: items.filter(pl.col("pathway") == pathway, pl.col("index") == 0, pl.col("prompt_id") == "p0")
        .sort(pl.col("hop").cast(pl.Enum(["input", "intermediate", "output"])))["kind"]
        .to_list()
        for pathway in pathways
    }
    assert kinds == {
        "generation": ["text", "image"],
        "understanding": ["text", "text"],
        "understanding_generation": ["text", "text", "image"],
        "generation_understanding": ["text", "image", "text"],
    }
    assert set(items["outcome"]) == {"made"}
    judgements = pl.read_parquet(tmp_path / "run" / "judgements.parquet")
    assert len(judgements) == len(items)
    # A second run has nothing left to do.
    again = measure(tmp_path / "plan.yaml", tmp_path / "run")
    assert pl.read_parquet(tmp_path / "run" / "items.parquet").equals(items)
    assert again.n_done == 16


def test_keys_are_checked_before_anything_is_loaded() -> None:
    for keys, complaint in (
        ({"dtype": "bf16"}, "Unknown dtype 'bf16'"),
        ({"guidance": 0.5}, "Expected `guidance` of at least 1"),
        ({"max_tokens": 0}, "Expected `max_tokens` of at least 1"),
        ({"reads": False, "draws": False}, "Expected a model that reads or draws"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            build("owner/name", **keys)
    same, moved = build("owner/name"), build("owner/name", device="cuda:1")
    assert same.identity() == moved.identity() != build("owner/name", text_temperature=0.0).identity()
    assert same.version() == "owner/name@newest"


@pytest.mark.slow
def test_a_model_that_is_not_there_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="Expected to load"):
        build(tmp_path / "empty").understand((), "x", seed=1)
    assert build(tmp_path / "empty").understand((b"no picture",), "x", seed=1).outcome == "failed"


@pytest.mark.slow
def test_as_a_generator_it_is_loaded_once(
    tiny_unified: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []
    load = transformers_unified.LoadedModel

    def counted(*given: Any) -> Any:
        loads.append(given)
        return load(*given)

    monkeypatch.setattr(transformers_unified, "LoadedModel", counted)
    keys = {"name": "tiny", "kind": "transformers", "model": str(tiny_unified("janus")), "paradigm": "mllm"}
    parameters = GeneratorModelParameters(keys | {"dtype": "float32", "device": "cpu", "guidance": 3.0})
    model = GeneratorModel(parameters, ModelContext("tiny", "unknown", tmp_path, tmp_path))
    images = [model.generate("a red fox", seed=seed).image for seed in (1, 2, 1)]
    assert images[0] == images[2] != images[1]
    assert len(loads) == 1
    # The same weights draw the same picture, whichever kind of model they are behind.
    assert build(tiny_unified("janus")).generate("a red fox", seed=1).image == images[0]
    model.close()
    assert model.generate("a red fox", seed=1).image == images[0]
    assert len(loads) == 2
