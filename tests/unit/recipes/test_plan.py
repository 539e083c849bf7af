"""`collect --plan`: the numbers that a build then gives, and not a byte changed on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from forgery_det.cli import main
from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.recipes.build import collect
from forgery_det.recipes.generate.outlook import known_prompts
from forgery_det.recipes.load import load_recipe
from forgery_det.recipes.plan import PlanRow, plan
from forgery_det.recipes.prompting.base import TextReply, TextRequest
from forgery_det.recipes.prompting.journal import PromptJournal, journal_path
from forgery_det.recipes.prompting.read import seed_of
from synth.images import folder_sources, write_images, write_recipe

PROGRAM = """
import json, random, sys
from PIL import Image
for line in sys.stdin:
    job = json.loads(line)
    random.seed(job["seed"])
    Image.frombytes("RGB", (64, 64), random.randbytes(64 * 64 * 3)).save(job["output_path"])
    print(json.dumps({"job_id": job["job_id"], "status": "image"}), flush=True)
"""

EXPAND = {"kind": "openai_chat", "model": "writer-1", "base_url": "http://127.0.0.1:9/v1", "instruction": "Longer."}


def _recipe(folder: Path, generator: dict[str, Any] | None = None, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_images(folder / "real", 4, generated=False, width_px=64)
    (folder / "program.py").write_text(PROGRAM)
    (folder / "prompts.csv").write_text("id,text\n" + "".join(f"p{i},picture number {i}\n" for i in range(10)))
    command = {"name": "toy", "kind": "command", "model": "toy", "paradigm": "gan"} | {
        "command": ["{python}", str(folder / "program.py")]
    }
    made = {"id": "toys", "kind": "generate", "label": "generated", "licence": "CC0", "prompts": "captions"}
    sources = [folder_sources(folder)[0], made | {"generator": generator or command} | changes.pop("made", {})]
    prompts = {
        "from": {"kind": "prompt_file", "path": "prompts.csv", "columns": {"prompt": "text", "content_id": "id"}}
    }
    sets = {"captions": prompts | changes.pop("prompts", {})}
    return write_recipe(folder / "recipe.yaml", sources, prompt_sets=sets, **changes)


def _of(rows: tuple[PlanRow, ...], source: str) -> list[PlanRow]:
    return [row for row in rows if row.source == source]


def _snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))}


def test_a_plan_foresees_what_collect_makes(tmp_path: Path) -> None:
    recipe, out, cache = _recipe(tmp_path / "recipe"), tmp_path / "out", tmp_path / "cache"
    before = _snapshot(tmp_path)
    foreseen = plan(recipe, out, cache=cache)
    assert _snapshot(tmp_path) == before
    (photos,), (toys,) = _of(foreseen.rows, "photos"), _of(foreseen.rows, "toys")
    assert (photos.images, photos.generator, photos.exact, photos.to_make, photos.usd) == (4, "camera", False, 0, 0)
    assert photos.splits == {"train": 2.0, "val": 1.0, "test": 1.0}, "the fractions of four images"
    assert (toys.images, toys.generator, toys.level, toys.exact) == (10, "toy", "v0", True)
    assert (toys.done, toys.to_make, toys.usd, toys.seconds) == (0, 10, 0.0, None)
    made = Manifest.load(collect(recipe, out, cache=cache).dataset).frame.filter(label=1)
    counts = dict(made["split"].value_counts().iter_rows())
    assert toys.splits == {split: counts.get(split, 0) for split in ("train", "val", "test")}
    before = _snapshot(tmp_path)
    (again,) = _of(plan(recipe, out, cache=cache).rows, "toys")
    assert _snapshot(tmp_path) == before
    assert (again.done, again.to_make, again.seconds) == (10, 0, 0)
    (elsewhere,) = _of(plan(recipe, tmp_path / "other", cache=cache).rows, "toys")
    assert elsewhere.done == 10, "what the job store has is not made again for another dataset"
    (photos,) = _of(plan(recipe, out, cache=cache).rows, "photos")
    assert photos.done == 4
    changed = yaml.safe_load(recipe.read_text())
    changed["sources"][1]["generator"]["parameters"] = {"steps": 2}
    recipe.write_text(yaml.safe_dump(changed))
    (other,) = _of(plan(recipe, out, cache=cache).rows, "toys")
    assert (other.done, other.to_make) == (0, 10), "a changed parameter makes new jobs"


def test_the_command_prints_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    generator = {"name": "x-1", "kind": "openai_images", "model": "x", "paradigm": "mllm", "usd_per_image": 0.04}
    recipe = _recipe(tmp_path / "recipe", generator, made={"budget": {"images": 3}})
    before = _snapshot(tmp_path)
    words = ["collect", str(recipe), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--plan"]
    assert main(words) == 0
    assert _snapshot(tmp_path) == before
    told = capsys.readouterr().out
    assert "nothing was fetched, made or written" in told
    assert "$0.40" in told
    assert "Source 'toys' makes at most 3 images a run." in told
    assert "Licence: CC0 Commercial use: unknown." in told
    assert main([*words, "--workers", "2"]) == 2
    assert "Expected `--workers` together with `--executor ray`" in capsys.readouterr().err


def test_a_price_that_nobody_knows_is_called_unknown(tmp_path: Path) -> None:
    generator = {"name": "x-1", "kind": "openai_images", "model": "x", "paradigm": "mllm"}
    (row,) = _of(plan(_recipe(tmp_path, generator), tmp_path / "out", cache=tmp_path / "cache").rows, "toys")
    assert (row.images, row.usd) == (10, None)


def test_longer_prompts_count_and_their_answers_are_found(tmp_path: Path) -> None:
    expanded = {"levels": ["v0", "v1"], "limit": 6, "expand": EXPAND}
    recipe = _recipe(tmp_path / "recipe", prompts=expanded, made={"levels": ["v0", "v1"], "images_per_prompt": 2})
    out = tmp_path / "out"
    foreseen = plan(recipe, out, cache=tmp_path / "cache")
    assert foreseen.texts == {"captions": 6}
    assert [(row.level, row.images) for row in _of(foreseen.rows, "toys")] == [("v0", 12), ("v1", 12)]
    short, long = _of(foreseen.rows, "toys")
    assert short.splits == long.splits, "an idea has one group on all its levels"
    spec = load_recipe(recipe).prompt_sets["captions"]
    known = known_prompts(spec, out, tmp_path / "cache")
    assert known is not None
    first = known.prompts[0]
    request = TextRequest("Longer.", first.text, seed_of(0, first.prompt_id, "v1"))
    with PromptJournal(journal_path(out, "captions")) as journal:
        journal.add("k", request, {}, TextReply("A very long picture number nought with a frame", "stop"))
    assert plan(recipe, out, cache=tmp_path / "cache").texts == {"captions": 5}
    again = known_prompts(spec, out, tmp_path / "cache")
    assert again is not None
    assert [prompt.text for prompt in again.at(["v1"])][:2] == ["A very long picture number nought with a frame", ""]


def test_images_made_of_other_images_are_counted(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path / "recipe", made={"images": "photos", "prompts": None, "prompt": "as it is"})
    body = yaml.safe_load(recipe.read_text())
    body["sources"][1] = {key: value for key, value in body["sources"][1].items() if value is not None}
    body["sources"].reverse()
    recipe.write_text(yaml.safe_dump(body))
    before = _snapshot(tmp_path)
    (toys,) = _of(plan(recipe, tmp_path / "out", cache=tmp_path / "cache").rows, "toys")
    assert _snapshot(tmp_path) == before
    assert (toys.images, toys.to_make, toys.generator) == (4, 4, "toy")


def test_what_only_reading_can_tell_is_not_guessed(tmp_path: Path) -> None:
    source = {
        "id": "hub", "kind": "huggingface", "dataset": "owner/name", "revision": "0" * 40, "licence": "CC0",
        "columns": {"image": "image", "label": "fake"},
    }  # fmt: skip
    recipe = write_recipe(tmp_path / "recipe.yaml", [source, source | {"id": "some", "max_items": 7}])
    foreseen = plan(recipe, tmp_path / "out", cache=tmp_path / "cache")
    hub, some = foreseen.rows
    assert (hub.images, hub.splits, hub.n_bytes, hub.generator) == (None, {}, None, "")
    assert some.images == 7
    assert sum(some.splits.values()) == pytest.approx(7)
    assert [download.cached for download in foreseen.downloads] == [None]


def test_a_mistake_shows_in_the_plan_too(folder_recipe: Path, tmp_path: Path) -> None:
    body = yaml.safe_load(folder_recipe.read_text())
    body["split"]["fractions"] = {"train": 0.5}
    folder_recipe.write_text(yaml.safe_dump(body))
    with pytest.raises(ConfigError, match="Expected fractions that sum to 1"):
        plan(folder_recipe, tmp_path / "out", cache=tmp_path / "cache")
