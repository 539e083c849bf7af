"""`croissant.json`: the dataset's description in the format of MLCommons, so that other tools can load it.

Croissant 1.0 is JSON-LD over schema.org (Akhtar et al., "Croissant: A Metadata Format for ML-Ready Datasets", arXiv
2403.19546). It is built by hand here because it is small and must be the same bytes for the same dataset; therefore it
also carries no date of publication.
"""

from __future__ import annotations

from typing import Any

from forgery_det.core.manifest import COLUMNS, MANIFEST_NAME
from forgery_det.recipes.process import image_suffix
from forgery_det.recipes.recipe import Recipe

CROISSANT_NAME = "croissant.json"

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
DATA_TYPES = {"String": "sc:Text", "Int64": "sc:Integer", "Date": "sc:Date"}
_MEDIA_TYPES = {"jpeg", "png", "webp", "avif", "gif", "tiff"}


def croissant(
    recipe: Recipe, manifest_sha256: str, manifest_bytes: int, codecs: tuple[str, ...], *, sharded: bool = False
) -> dict[str, Any]:
    """Return the description of a dataset as JSON-LD.

    Args:
        recipe: The recipe.
        manifest_sha256: Of the bytes of `manifest.parquet`.
        manifest_bytes: Its size.
        codecs: Codecs of the stored images, sorted.
        sharded: The images lie in tar shards.
    """
    cited = {"citeAs": recipe.citation} if recipe.citation else {}
    return cited | {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": recipe.name,
        "description": recipe.description,
        "license": recipe.licence,
        "version": f"1.0.0+{recipe.digest[:12]}",
        "distribution": [_manifest_file(manifest_sha256, manifest_bytes), *_image_files(codecs, sharded)],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "description": "One record an image, real or generated.",
                "key": {"@id": "images/image_id"},
                "field": [_file_id(), *(_field(name) for name in COLUMNS), _pixels()],
            }
        ],
    }


def _manifest_file(sha256: str, n_bytes: int) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": "manifest",
        "name": MANIFEST_NAME,
        "contentUrl": MANIFEST_NAME,
        "contentSize": f"{n_bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": sha256,
    }


def _image_files(codecs: tuple[str, ...], sharded: bool) -> list[dict[str, Any]]:
    media = [f"image/{codec}" for codec in codecs if codec in _MEDIA_TYPES]
    images: dict[str, Any] = {
        "@type": "cr:FileSet",
        "@id": "image-files",
        "name": "image-files",
        "encodingFormat": media[0] if len(media) == 1 else media,
        "includes": "images/*/*",
    }
    if not sharded:
        return [images]
    shards = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "encodingFormat": "application/x-tar",
        "includes": "shards/*/*.tar",
    }
    suffixes = [f"*.{image_suffix(codec)}" for codec in codecs]
    inside = {"containedIn": {"@id": "shards"}, "includes": suffixes[0] if len(suffixes) == 1 else suffixes}
    return [shards, images | inside]


def _field(name: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"images/{name}",
        "name": name,
        "dataType": DATA_TYPES[str(COLUMNS[name].dtype)],
        "source": {"fileObject": {"@id": "manifest"}, "extract": {"column": name}},
    }


def _file_id() -> dict[str, Any]:
    # Joins a record to its file. The regular expression stands on the side of the file, the only one where the
    # reference implementation applies it.
    return {
        "@type": "cr:Field",
        "@id": "images/file_id",
        "name": "file_id",
        "description": "The `image_id` in the name of the file.",
        "dataType": "sc:Text",
        "source": {
            "fileSet": {"@id": "image-files"},
            "extract": {"fileProperty": "filename"},
            "transform": {"regex": "([0-9a-f]{64})"},
        },
        "references": {"fileObject": {"@id": "manifest"}, "extract": {"column": "image_id"}},
    }


def _pixels() -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": "images/image",
        "name": "image",
        "description": "The file that is called by its `image_id`; its place is `path`.",
        "dataType": "sc:ImageObject",
        "source": {"fileSet": {"@id": "image-files"}, "extract": {"fileProperty": "content"}},
    }
