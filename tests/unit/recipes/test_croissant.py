from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.manifest import COLUMNS
from forgery_det.recipes.build import collect


def _nodes(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(node for item in value.values() for node in _nodes(item))]
    return [node for item in value for node in _nodes(item)] if isinstance(value, list) else []


def test_the_description_fits_the_dataset(folder_recipe: Path, tmp_path: Path) -> None:
    out = collect(folder_recipe, tmp_path / "out").dataset
    card = json.loads((out / "croissant.json").read_text())
    assert card["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert card["name"] == "synthetic"
    manifest, images = card["distribution"]
    assert manifest["sha256"] == sha256_file(out / manifest["contentUrl"])
    assert manifest["contentSize"] == f"{(out / 'manifest.parquet').stat().st_size} B"
    assert images["encodingFormat"] == "image/webp"
    assert len(list(out.glob(images["includes"]))) == 24
    (records,) = card["recordSet"]
    assert [field["name"] for field in records["field"]] == ["file_id", *COLUMNS, "image"]


def test_references_lead_to_nodes_that_exist(folder_recipe: Path, tmp_path: Path) -> None:
    out = collect(folder_recipe, tmp_path / "out").dataset
    body = json.loads((out / "croissant.json").read_text())
    del body["@context"]
    nodes = _nodes(body)
    defined = {node["@id"] for node in nodes if "@type" in node and "@id" in node}
    referenced = {node["@id"] for node in nodes if set(node) == {"@id"}}
    assert referenced
    assert referenced <= defined
    assert len(defined) == len([node for node in nodes if "@type" in node and "@id" in node])
