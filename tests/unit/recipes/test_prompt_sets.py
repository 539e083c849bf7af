from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import encode_image
from forgery_det.recipes.load import load_recipe
from forgery_det.recipes.prompt_sets import ContentImage, PromptContext, PromptSet, PromptSetSpec
from forgery_det.recipes.prompting.journal import journal_path
from forgery_det.recipes.prompting.read import read_prompt_set
from forgery_det.recipes.prompting.schema import DEFAULT_INSTRUCTION, parse_prompt_sets
from forgery_det.recipes.prompting.table import PROMPTS_SCHEMA, prompts_frame
from synth.chat_server import Answer, ChatServer, Fault, longer, user_text
from synth.images import folder_sources, smooth_image, write_images, write_recipe

pytest.importorskip("openai", reason="the extra `generate` is not installed")

CAPTIONS = ["a red fox in the snow", "a cup on the table", "two boats at sea", "a man with an umbrella"]


def longer_text(text: str) -> str:
    answer = longer({"messages": [{"content": text}]})
    assert answer.text is not None
    return answer.text


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def _spec(folder: Path, server: ChatServer | None, **changes: Any) -> PromptSetSpec:
    """Return a set over `captions.csv`, as a recipe would give it."""
    path = folder / "captions.csv"
    if not path.is_file():
        pl.DataFrame({"caption": CAPTIONS, "image": [f"{i:03d}" for i in range(len(CAPTIONS))]}).write_csv(path)
    given: dict[str, Any] = {
        "from": {"kind": "prompt_file", "path": path.name, "columns": {"prompt": "caption", "content_id": "image"}},
        "levels": ["v0", "v1", "v2"],
    }
    if server is not None:
        address = {"base_url": server.base_url, "concurrency": 1, "retries": 0}
        given["expand"] = {"kind": "openai_chat", "model": "m", **address}
    given |= changes
    return parse_prompt_sets({"captions": given}, folder / "recipe.yaml")["captions"]


def _read(spec: PromptSetSpec, out: Path, images: tuple[ContentImage, ...] = ()) -> PromptSet:
    return read_prompt_set(spec, PromptContext(out, out, lambda _source_id: images))


def test_levels_grow_out_of_one_another_under_one_id(tmp_path: Path, server: ChatServer) -> None:
    found = _read(_spec(tmp_path, server), tmp_path)
    assert [prompt.level for prompt in found.prompts] == ["v0", "v1", "v2"] * 4
    assert len({prompt.prompt_id for prompt in found.prompts}) == 4
    for index, caption in enumerate(CAPTIONS):
        v0, v1, v2 = found.prompts[3 * index : 3 * index + 3]
        assert {one.prompt_id for one in (v0, v1, v2)} == {v0.prompt_id}
        assert {one.content_id for one in (v0, v1, v2)} == {one.source_id for one in (v0, v1, v2)} == {f"{index:03d}"}
        assert v0.text == caption
        assert v2.text.startswith(v1.text)
        assert v1.text.startswith(v0.text)
        assert v0.words < v1.words < v2.words
        assert v2.words == len(v2.text.split())
        assert v2.clip_tokens is None
    assert found.refused == ()
    assert [prompt.level for prompt in found.at(["v0", "v2"])] == ["v0", "v2"] * 4
    system = {body["messages"][0]["content"] for body in server.bodies}
    assert system == {DEFAULT_INSTRUCTION}
    assert len({body["seed"] for body in server.bodies}) == 8


def test_the_same_set_again_makes_no_request(tmp_path: Path, server: ChatServer) -> None:
    spec = _spec(tmp_path, server)
    first = _read(spec, tmp_path)
    assert len(server.bodies) == 8
    assert _read(spec, tmp_path) == first
    assert len(server.bodies) == 8


def test_a_changed_limit_keeps_what_is_done_and_a_changed_request_does_not(tmp_path: Path, server: ChatServer) -> None:
    few = _read(_spec(tmp_path, server, limit=2), tmp_path)
    assert len(server.bodies) == 4
    more = _read(_spec(tmp_path, server, limit=3), tmp_path)
    assert len(server.bodies) == 6
    assert more.prompts[:6] == few.prompts
    assert _read(_spec(tmp_path, server, limit=2), tmp_path).prompts == few.prompts
    assert len(server.bodies) == 6
    base = {"kind": "openai_chat", "model": "m", "base_url": server.base_url}
    for changes in ({"instruction": "Go on."}, {"model": "n"}, {"seed": 1}, {"temperature": 0.5}):
        before = len(server.bodies)
        _read(_spec(tmp_path, server, limit=2, expand=base | changes), tmp_path)
        assert len(server.bodies) == before + 4, changes
    assert server.bodies[6]["messages"][0]["content"] == "Go on."
    before = len(server.bodies)
    _read(_spec(tmp_path, server, limit=2, expand=base | {"concurrency": 2, "timeout_s": 9.0}), tmp_path)
    assert len(server.bodies) == before


def test_a_refused_expansion_ends_its_idea_with_a_reason(tmp_path: Path) -> None:
    def answer(body: Mapping[str, Any]) -> Answer:
        text = user_text(body)
        if "man" in text:
            return Answer("I'm sorry, I can't describe people.")
        if "cup" in text and "snow" in text:
            german = "Eine Tasse steht auf dem Tisch, und der Schnee liegt auf dem Feld bei einem Haus im Wald"
            return Answer(f"{german} und zu beiden Seiten, wo die Kinder mit den Hunden spielen")
        return Answer("boats") if "boats" in text else longer(body)

    with ChatServer(answer) as server:
        found = _read(_spec(tmp_path, server), tmp_path)
        assert len(server.bodies) == 4 + 2
        levels = {index: [p.level for p in found.prompts if p.content_id == f"{index:03d}"] for index in range(4)}
        assert levels == {0: ["v0", "v1", "v2"], 1: ["v0", "v1"], 2: ["v0"], 3: ["v0"]}
        assert [(one.key.split("/")[1], one.reason) for one in found.refused] == [
            ("v2", "language"),
            ("v1", "not_longer"),
            ("v1", "refused"),
        ]
        assert found.refused[1].detail == "Expected more than 4 words, got 1. (captions.csv row 3)"
        # A refusal is an answer: it is not asked for again.
        assert _read(_spec(tmp_path, server), tmp_path) == found
        assert len(server.bodies) == 6


def test_what_failed_is_asked_for_again_by_the_next_run(tmp_path: Path) -> None:
    with ChatServer(faults=(Fault(500),)) as server:
        found = _read(_spec(tmp_path, server, levels=["v0", "v1"]), tmp_path)
        assert [one.reason for one in found.refused] == ["expansion_failed"]
        assert len(server.bodies) == 4
        again = _read(_spec(tmp_path, server, levels=["v0", "v1"]), tmp_path)
        assert again.refused == ()
        assert len(again.prompts) == 8
        assert len(server.bodies) == 5


def test_a_server_that_is_down_is_an_error_that_keeps_what_came(tmp_path: Path) -> None:
    def answer(body: Mapping[str, Any]) -> Answer | Fault:
        return longer(body) if "fox" in user_text(body) else Fault(401)

    with ChatServer(answer) as server:
        with pytest.raises(SourceError, match=r"status 401.*\(prompts captions v1\)\. 1 of 4 texts are there and kept"):
            _read(_spec(tmp_path, server), tmp_path)
        server.answer = longer
        assert len(_read(_spec(tmp_path, server), tmp_path).prompts) == 12
    assert server.texts.count(CAPTIONS[0]) == 1


def test_levels_that_the_source_gives_are_taken_as_they_are(tmp_path: Path, server: ChatServer) -> None:
    rows = {
        "short": ["a red fox", "a cup", "two boats"],
        "long": ["A red fox stands in deep snow.", "a cup", None],
        "image": ["1", "2", "3"],
    }
    pl.DataFrame(rows).write_csv(tmp_path / "recap.csv")  # where a missing text is an empty cell
    columns = {"prompt": "short", "v1": "long", "content_id": "image"}
    source = {"kind": "prompt_file", "path": "recap.csv", "columns": columns}
    found = _read(_spec(tmp_path, None, **{"from": source, "levels": ["v0", "v1"]}), tmp_path)
    assert [(p.content_id, p.level) for p in found.prompts] == [("1", "v0"), ("1", "v1"), ("2", "v0"), ("3", "v0")]
    assert found.prompts[0].prompt_id == found.prompts[1].prompt_id
    assert [one.reason for one in found.refused] == ["repeats", "missing_level"]
    # With a model beside it, only what the source lacks is written.
    expand = {"kind": "openai_chat", "model": "m", "base_url": server.base_url}
    grown = _read(_spec(tmp_path, None, **{"from": source, "levels": ["v0", "v1", "v2"], "expand": expand}), tmp_path)
    assert sorted(server.texts) == ["A red fox stands in deep snow.", "two boats", longer_text("two boats")]
    assert [p.level for p in grown.prompts if p.content_id == "1"] == ["v0", "v1", "v2"]
    assert [p.level for p in grown.prompts if p.content_id == "2"] == ["v0"]


def test_rows_that_give_no_prompt_of_their_own_are_named_and_do_not_count(tmp_path: Path) -> None:
    rows = {"prompt": ["a fox", "", "A  FOX", "a cup"], "content_id": ["1", "2", "1", "1"]}
    pl.DataFrame(rows).write_csv(tmp_path / "p.csv")
    source = {"kind": "prompt_file", "path": "p.csv", "columns": {"prompt": "prompt", "content_id": "content_id"}}
    found = _read(_spec(tmp_path, None, **{"from": source, "levels": ["v0"], "limit": 2}), tmp_path)
    assert [prompt.text for prompt in found.prompts] == ["a fox", "a cup"]
    assert [(one.reason, one.detail.rpartition("(")[2]) for one in found.refused] == [
        ("empty", "p.csv row 2)"),
        ("duplicate_prompt", "p.csv row 3)"),
    ]
    # Without a content_id the idea itself is the content.
    source["columns"] = {"prompt": "prompt"}
    found = _read(_spec(tmp_path, None, **{"from": source, "levels": ["v0"]}), tmp_path)
    assert [prompt.content_id.partition(":")[0] for prompt in found.prompts] == ["prompt", "prompt"]
    assert found.prompts[0].content_id == found.prompts[0].source_id


def _images(folder: Path, count: int = 3) -> tuple[ContentImage, ...]:
    images = []
    for index in range(count):
        path = folder / f"{index}.png"
        path.write_bytes(encode_image(smooth_image(index, 64, 48), "png", None))
        images.append(ContentImage(f"{index}.png", f"photo-{index}", f"scene-{index}", f"{index:064d}", path))
    return tuple(images)


def test_captions_of_images_share_their_content_and_are_asked_for_once(tmp_path: Path) -> None:
    def answer(body: Mapping[str, Any]) -> Answer:
        if isinstance(body["messages"][-1]["content"], str):
            return longer(body)
        return Answer(f"A picture with the number {len(body['messages'][-1]['content'][0]['image_url']['url'])} on it.")

    with ChatServer(answer) as server:
        by = {"kind": "openai_chat", "model": "v", "base_url": server.base_url, "language": "en"}
        source = {"kind": "prompt_captions", "images": "photographs", "by": by}
        spec = _spec(tmp_path, server, **{"from": source, "levels": ["v0", "v1"], "limit": 2})
        found = _read(spec, tmp_path, _images(tmp_path))
        assert [(p.content_id, p.source_id, p.level) for p in found.prompts] == [
            ("photo-0", "scene-0", "v0"),
            ("photo-0", "scene-0", "v1"),
            ("photo-1", "scene-1", "v0"),
            ("photo-1", "scene-1", "v1"),
        ]
        assert len(server.bodies) == 4
        assert _read(spec, tmp_path, _images(tmp_path)) == found
        assert len(server.bodies) == 4
        (other,) = (replace(image, sha256="f" * 64) for image in _images(tmp_path, 1))
        _read(spec, tmp_path, (other,))
        assert len(server.bodies) == 5  # another image is another request; the same caption of the same content is not
    row = found.records[0]
    assert row["kind"] == "openai_chat"
    assert row["image_sha256"] == "0" * 64


def test_two_images_of_one_content_with_one_caption_are_one_idea(tmp_path: Path) -> None:
    first, second, other = _images(tmp_path)
    alike = (first, replace(second, content_id=first.content_id), other)
    with ChatServer(lambda _body: Answer("A photograph of some waves.")) as server:
        source = {"kind": "prompt_captions", "images": "p", "by": {"kind": "openai_chat", "model": "v"}}
        source["by"] |= {"base_url": server.base_url}  # type: ignore[operator]
        found = _read(_spec(tmp_path, None, **{"from": source, "levels": ["v0"]}), tmp_path, alike)
    assert [prompt.content_id for prompt in found.prompts] == ["photo-0", "photo-2"]
    assert [one.reason for one in found.refused] == ["duplicate_prompt"]


def test_every_intermediate_is_in_the_table(tmp_path: Path, server: ChatServer) -> None:
    found = _read(_spec(tmp_path, server, limit=1), tmp_path)
    frame = prompts_frame([found])
    assert dict(frame.schema) == PROMPTS_SCHEMA
    v0, v1, v2 = frame.iter_rows(named=True)
    assert (v0["kind"], v0["model"], v0["parent"], v0["place"]) == ("given", None, None, "captions.csv row 1")
    assert (v1["parent"], v2["parent"]) == (CAPTIONS[0], v1["prompt"])
    assert v2["answer"] == v2["prompt"]
    assert (v2["model"], v2["model_version"], v2["response_id"]) == ("m", "m-2026-01-01", "chatcmpl-2")
    assert v2["instruction"] == DEFAULT_INSTRUCTION
    assert v2["seed"] == server.bodies[1]["seed"]
    assert json.loads(v2["parameters"])["max_tokens"] == 1024
    lines = journal_path(tmp_path, "captions").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["key"] for line in lines] == [v1["request_id"], v2["request_id"]]


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_line_that_a_kill_cut_short_is_asked_for_again(tmp_path: Path, server: ChatServer, cut: int) -> None:
    spec = _spec(tmp_path, server, levels=["v0", "v1"])
    whole = _read(spec, tmp_path)
    path = journal_path(tmp_path, "captions")
    path.write_bytes(path.read_bytes()[:-cut])
    assert _read(spec, tmp_path).prompts == whole.prompts
    assert len(server.bodies) == 5
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


def test_a_damaged_line_costs_one_answer_and_not_those_after_it(tmp_path: Path, server: ChatServer) -> None:
    spec = _spec(tmp_path, server, levels=["v0", "v1"])
    whole = _read(spec, tmp_path)
    path = journal_path(tmp_path, "captions")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:50] + b"\n", *lines[2:]]))
    assert _read(spec, tmp_path).prompts == whole.prompts
    assert len(server.bodies) == 5


_CHILD = """
import sys
from pathlib import Path
from forgery_det.recipes.load import load_recipe
from forgery_det.recipes.prompt_sets import PromptContext
from forgery_det.recipes.prompting.read import read_prompt_set
folder = Path(sys.argv[1])
recipe = load_recipe(folder / "recipe.yaml")
read_prompt_set(recipe.prompt_sets["captions"], PromptContext(folder, folder))
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3, 6])
def test_kill_9_loses_the_expansion_in_flight_and_no_other(tmp_path: Path, after: int) -> None:
    killed: list[int] = []

    def answer(body: Mapping[str, Any]) -> Answer:
        if len(server.bodies) == after and not killed:
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)
        return longer(body)

    with ChatServer(answer) as server:
        spec = _recipe(tmp_path, server).prompt_sets["captions"]
        child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)])
        assert child.wait(timeout=120) == -signal.SIGKILL
        assert len(server.bodies) == after
        found = _read(spec, tmp_path)
        assert len(found.prompts) == 12
        assert len(server.bodies) == 8 + 1
    with ChatServer() as other:
        assert _read(_recipe(tmp_path, other).prompt_sets["captions"], tmp_path / "new").prompts == found.prompts


def _recipe(folder: Path, server: ChatServer, **changes: Any) -> Any:
    _spec(folder, None, levels=["v0"])  # writes captions.csv
    write_images(folder / "images" / "real", 2, generated=False)
    write_images(folder / "images" / "fake", 2, generated=True)
    columns = {"prompt": "caption", "content_id": "image"}
    expand = {"kind": "openai_chat", "model": "m", "base_url": server.base_url, "concurrency": 1}
    given = {
        "from": {"kind": "prompt_file", "path": "captions.csv", "columns": columns},
        "levels": ["v0", "v1", "v2"],
        "expand": expand,
    } | changes
    path = write_recipe(folder / "recipe.yaml", folder_sources(folder / "images"), prompt_sets={"captions": given})
    return load_recipe(path)


def test_the_digest_of_a_recipe_follows_its_prompts(tmp_path: Path, server: ChatServer) -> None:
    before = _recipe(tmp_path, server)
    assert before.prompt_sets["captions"].most_prompts() is None
    assert _recipe(tmp_path, server).digest == before.digest
    path = tmp_path / "captions.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("fox", "cat"), encoding="utf-8")
    assert _recipe(tmp_path, server).digest != before.digest


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"levels": ["v0", "v2"]}, r"Expected `levels` from v0 on without a gap.*\(r.yaml: prompt_sets.s\)"),
        ({"levels": ["v0", "v3"]}, "Unknown level 'v3' in `levels`"),
        ({"limit": 0}, "Expected `limit` of at least 1, got 0"),
        ({"levels": ["v0", "v1"]}, r"Expected `expand`, or a column for the level 'v1', got neither"),
        ({"from": {"kind": "prompt_fil"}}, "Unknown prompt kind 'prompt_fil' .*did you mean 'prompt_file'"),
        ({"from": {"kind": "prompt_file"}}, r"Expected the key 'path', got none \(r.yaml: prompt_sets.s.from\)"),
        ({"expand": {"kind": "openai"}}, "Unknown text model 'openai' .*did you mean 'openai_chat'"),
        ({"expand": {"kind": "openai_chat", "modle": "m"}}, "Unknown key 'modle' .*did you mean 'model'"),
        ({"expand": {"kind": "openai_chat", "model": "m", "language": "pl"}}, "Unknown language 'pl'"),
        ({"expand": {"kind": "transformers_vision", "model": "m"}}, "Expected a model that expands texts, one of"),
        (
            {"expand": {"kind": "pipeline", "model": "m", "instruction": "x"}},
            "Expected no `instruction`, as this 'pipeline' takes none",
        ),
        (
            {"from": {"kind": "prompt_captions", "images": "a", "by": {"kind": "transformers_text", "model": "m"}}},
            r"Expected a model that describes images.*\(r.yaml: prompt_sets.s.from.by.kind\)",
        ),
    ],
)
def test_mistakes_in_a_recipe_are_named_with_their_place(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    given = {"from": {"kind": "prompt_file", "path": "p.csv"}} | change
    with pytest.raises(ConfigError, match=text):
        parse_prompt_sets({"s": given}, tmp_path / "r.yaml")


def test_a_set_needs_a_name_that_can_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected a name of letters, digits"):
        parse_prompt_sets({"../x": {}}, tmp_path / "r.yaml")


def test_keys_never_reach_the_disk(tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    expand = {"kind": "openai_chat", "model": "m", "base_url": server.base_url, "key_variable": "MY_KEY"}
    _read(_spec(tmp_path, server, expand=expand), tmp_path)
    assert server.keys[0] == "Bearer sk-very-secret"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"sk-very-secret" not in path.read_bytes()
