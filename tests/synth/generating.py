"""Recipes with generating sources, for tests: prompts in a file, the toy program as generator."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from synth.images import write_recipe

TOY = Path(__file__).with_name("toy_generator.py")


def toy_generator(log: Path, **changes: Any) -> dict[str, Any]:
    """The key `generator` of a source that asks the toy program, which logs the jobs it begins."""
    return {
        "name": "toy",
        "kind": "command",
        "model": "toy",
        "paradigm": "diffusion",
        "decoder": "vae",
        "release_date": date(2024, 1, 1),
        "command": ["{python}", "-I", str(TOY), str(log)],
        "timeout_s": 20.0,
    } | changes


def write_prompts(path: Path, prompts: list[str]) -> Path:
    """Write prompts as JSON lines, each a content of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"prompt": text, "content": f"c{index}"}) for index, text in enumerate(prompts)]
    path.write_text("\n".join(lines) + "\n")
    return path


def prompt_recipe(folder: Path, prompts: list[str], *sources: dict[str, Any], **changes: Any) -> Path:
    """Write a recipe whose generating sources use the prompt set `ideas`."""
    write_prompts(folder / "prompts.jsonl", prompts)
    columns = {"prompt": "prompt", "content_id": "content"}
    ideas = {"from": {"kind": "prompt_file", "path": "prompts.jsonl", "columns": columns}}
    common = {"kind": "generate", "licence": "CC0"}
    complete = [common | source if source.get("kind", "generate") == "generate" else source for source in sources]
    return write_recipe(folder / "recipe.yaml", complete, prompt_sets={"ideas": ideas}, **changes)


def begun(log: Path) -> list[str]:
    """The ids of the jobs that the toy program began, in order."""
    return log.read_text().split() if log.is_file() else []
