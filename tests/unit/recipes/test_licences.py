"""A recipe that is marked commercial names everything in it that forbids that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.build import collect
from forgery_det.recipes.generate import registry
from forgery_det.recipes.generate.registry import GeneratorCard
from forgery_det.recipes.licences import forbids_commerce
from forgery_det.recipes.load import load_recipe
from synth.images import folder_sources, write_recipe


@pytest.mark.parametrize(
    "licence",
    [
        "CC-BY-NC-4.0", "cc by-nc-sa 3.0", "CC BY-NC-ND 2.0", "flux-1-dev-non-commercial-license", "Noncommercial",
        "research only", "Academic use only", "stabilityai-nc-research-community",
    ],
)  # fmt: skip
def test_forbidding_names_are_known(licence: str) -> None:
    assert forbids_commerce(licence)


@pytest.mark.parametrize("licence", ["MIT", "CC-BY-SA-4.0", "NCSA", "CC0", "unknown", "OpenRAIL++-M", "Pexels licence"])
def test_other_names_are_not(licence: str) -> None:
    assert not forbids_commerce(licence)


def _marked(folder: Path, use: str, fakes: str = "CC-BY-NC-4.0", **changes: Any) -> Path:
    real, fake = folder_sources(folder)
    return write_recipe(folder / "r.yaml", [real, fake | {"licence": fakes}], commercial_use=use, **changes)


def test_a_non_commercial_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got source 'fakes' .CC-BY-NC-4.0. .*set `commercial_use: no`"):
        load_recipe(_marked(tmp_path, "yes"))
    assert load_recipe(_marked(tmp_path, "no")).commercial_use == "no"
    assert load_recipe(_marked(tmp_path, "unknown")).commercial_use == "unknown"
    with pytest.raises(ConfigError, match=r"got the recipe .for research only."):
        load_recipe(_marked(tmp_path, "yes", "CC0", licence="for research only"))


@pytest.mark.parametrize(
    ("card", "fits"),
    [({"licence": "MIT"}, True), ({"licence": "own", "commercial_use": "no"}, False), ({"licence": "X NC"}, False)],
)
def test_a_non_commercial_generator_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: dict[str, Any], fits: bool
) -> None:
    toy = GeneratorCard("command", "toy", "gan", "pixel", **card)
    monkeypatch.setattr(registry, "generator_cards", lambda: {"toy-1": toy})
    source = {
        "id": "toys", "kind": "generate", "label": "generated", "licence": "CC0", "prompts": "p",
        "generator": {"name": "toy-1", "command": ["true"]},
    }  # fmt: skip
    (tmp_path / "p.csv").write_text("prompt\na fox\n")
    prompts = {"p": {"from": {"kind": "prompt_file", "path": "p.csv"}}}
    recipe = write_recipe(tmp_path / "r.yaml", [source], commercial_use="yes", prompt_sets=prompts)
    if fits:
        assert load_recipe(recipe).commercial_use == "yes"
        return
    with pytest.raises(ConfigError, match=r"got generator 'toy-1' of source 'toys' .*(non-commercial|NC)"):
        load_recipe(recipe)


def test_a_licence_of_a_single_image_counts_too(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("member,licence\n" + "".join(f"{i:05d}.png,CC BY-NC 4.0\n" for i in range(12)))
    real, fake = folder_sources(image_folder)
    del fake["licence"]
    recipe = write_recipe(tmp_path / "r.yaml", [real, fake | {"annotations": "t.csv"}], commercial_use="yes")
    with pytest.raises(ConfigError, match=r"got images of source 'fakes' .CC BY-NC 4.0."):
        collect(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()
