"""`croissant.json` of the pushed form: records from Parquet, the image in a column of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forgery_det.core.manifest import COLUMNS
from forgery_det.recipes.croissant import CONTEXT, DATA_TYPES
from forgery_det.recipes.push.tables import features


def parquet_croissant(dataset: Mapping[str, Any], files: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """Return the description of a pushed dataset as JSON-LD.

    Args:
        dataset: The content of `dataset.json`.
        files: Path of a Parquet file -> its size in bytes and its sha256.
    """
    cited = {"citeAs": dataset["citation"]} if dataset["citation"] else {}
    single = [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "contentUrl": path,
            "contentSize": f"{n_bytes} B",
            "encodingFormat": "application/x-parquet",
            "sha256": sha256,
        }
        for path, (n_bytes, sha256) in files.items()
    ]
    parquet = {
        "@type": "cr:FileSet",
        "@id": "parquet-files",
        "name": "parquet-files",
        "encodingFormat": "application/x-parquet",
        "includes": "data/*.parquet",
    }
    return cited | {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": dataset["name"],
        "description": dataset["description"],
        "license": dataset["licence"],
        "version": f"1.0.0+{dataset['recipe_sha256'][:12]}",
        "distribution": [*single, parquet],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "description": "One record an image, real or generated.",
                "key": {"@id": "images/image_id"},
                "field": [_field(name) for name in features()],
            }
        ],
    }


def _field(name: str) -> dict[str, Any]:
    extract: dict[str, Any] = {"column": name}
    source: dict[str, Any] = {"fileSet": {"@id": "parquet-files"}, "extract": extract}
    if name == "image":
        source["transform"] = {"jsonPath": "bytes"}
    data_type = "sc:ImageObject" if name == "image" else DATA_TYPES[str(COLUMNS[name].dtype)]
    return {"@type": "cr:Field", "@id": f"images/{name}", "name": name, "dataType": data_type, "source": source}
