"""`README.md` of a pushed dataset: the hub's metadata as YAML, then what a reader must know, from `dataset.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from forgery_det.core.types import GENERATED, REAL, SPLITS
from forgery_det.recipes.push.tables import LABEL_NAMES, DataFile

_HUB_LICENCES = (
    "apache-2.0", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0", "cc-by-3.0", "cc-by-sa-3.0", "cc-by-nc-3.0", "cc-by-nc-sa-3.0", "mit", "odc-by", "openrail",
)  # fmt: skip
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))


def card(dataset: Mapping[str, Any], files: Sequence[DataFile], repo: str) -> str:
    """Return the text of `README.md`.

    Args:
        dataset: The content of `dataset.json`.
        files: The Parquet files.
        repo: `owner/name` on the hub.
    """
    front = yaml.safe_dump(_front_matter(dataset, files), sort_keys=False, allow_unicode=True, width=120)
    parts = [f"---\n{front}---\n", f"# {dataset['name']}\n", f"{dataset['description']}\n", *_body(dataset, repo)]
    return "\n".join(parts)


def hub_licence(licence: str) -> dict[str, str]:
    """Return the hub's keys for a licence: its own word for a known one, `other` with the name for the rest.

    Example:
        >>> hub_licence("CC BY-NC 4.0"), hub_licence("CC0")
        ({'license': 'cc-by-nc-4.0'}, {'license': 'cc0-1.0'})
        >>> hub_licence("mixed; see README")
        {'license': 'other', 'license_name': 'mixed-see-readme'}
    """
    slug = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-.")
    known = {"cc0": "cc0-1.0"}.get(slug, slug)
    if known in _HUB_LICENCES:
        return {"license": known}
    return {"license": "other", "license_name": slug[:60].strip("-") or "unknown"}


def _front_matter(dataset: Mapping[str, Any], files: Sequence[DataFile]) -> dict[str, Any]:
    n_images = dataset["n_images"]
    size = next((name for limit, name in _SIZES if n_images < limit), "n>10M")
    splits = [split for split in SPLITS if any(file.split == split for file in files)]
    data_files = [{"split": split, "path": f"data/{split}-*"} for split in splits]
    return {
        **hub_licence(dataset["licence"]),
        "pretty_name": dataset["name"],
        "task_categories": ["image-classification"],
        "size_categories": [size],
        "tags": ["ai-generated-image-detection", "forgery-det"],
        "configs": [{"config_name": "default", "data_files": data_files}],
    }


def _body(dataset: Mapping[str, Any], repo: str) -> list[str]:
    counts = dataset["counts"]["split_label"]
    rows = [
        [split, str(counts.get(f"{split},{REAL}", 0)), str(counts.get(f"{split},{GENERATED}", 0))] for split in SPLITS
    ]
    generators = [[name, str(count)] for name, count in sorted(dataset["counts"]["generator"].items())]
    licences = [[name, str(count)] for name, count in sorted(dataset["licences"].items())]
    sources = [[one["id"], one["kind"], one["licence"] or "by image", one["citation"]] for one in dataset["sources"]]
    refused = [[reason, str(count)] for reason, count in sorted(dataset["quarantine"].items())]
    facts = [
        ["recipe (sha256)", dataset["recipe_sha256"]],
        ["manifest (sha256 of its rows)", dataset["manifest_digest"]],
        ["seed", str(dataset["seed"])],
        ["forgery-det", dataset["tool_version"]],
        *([name, version] for name, version in sorted(dataset["encoder_versions"].items())),
    ]
    names = ", ".join(f"{number} = {name}" for number, name in enumerate(LABEL_NAMES))
    return [
        f'```python\nfrom datasets import load_dataset\n\nimages = load_dataset("{repo}", split="train")\n```\n',
        f"`label`: {names}. Real images have `generator` and `paradigm` `camera`. `image_id` is the sha256 of the "
        "image's bytes. `source_id` groups what must not straddle a split; `content_id` pairs a real image with the "
        "generated ones of the same content.\n",
        "## Images\n",
        _table(["split", "real", "generated"], rows),
        _table(["generator", "images"], generators),
        "## Licences\n",
        f"The dataset as a whole: {dataset['licence']} Commercial use: {dataset['commercial_use']}.\n",
        _table(["licence of the image", "images"], licences),
        "## Sources\n",
        _table(["source", "kind", "licence", "whom to name"], sources),
        "## How it was made\n",
        "Every image was decoded, filtered, brought to one size and one codec and cleared of duplicates by the "
        "policies in `dataset.json`; `origins.parquet` keeps the facts of the original files, `quarantine.parquet` "
        "what was refused and why.\n",
        _table(["refused because", "number"], refused) if refused else "Nothing was refused.\n",
        _table(["fact", "value"], facts),
        *(["## Citation\n", f"{dataset['citation']}\n"] if dataset["citation"] else []),
    ]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
