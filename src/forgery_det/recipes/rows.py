"""Rows: records, annotations and the recipe's constants become rows of the manifest, or entries of the quarantine."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.core.types import CAMERA, REAL
from forgery_det.recipes.annotations import Annotation, item_field
from forgery_det.recipes.boxes import Box
from forgery_det.recipes.process import image_path
from forgery_det.recipes.recipe import SourceSpec
from forgery_det.recipes.work import FileFacts, Piece, Record

NOT_ANNOTATED, NOT_AS_ANNOTATED = "not_annotated", "not_as_annotated"
"""Stable words of the quarantine: an image without a row in its table, and a file that is not what its row says."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry of the quarantine.

    Args:
        source: Id of the source.
        key: The item's key, with `#box=0,68,400,400` for a box and `#crop2` for the third piece.
        reason: Stable word.
        detail: A sentence for people.
        sha256: Of the bytes that were refused, None when they could not be had or were not read.
    """

    source: str
    key: str
    reason: str
    detail: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored image that may enter the manifest.

    Args:
        row: Its manifest row, without `split` unless the split is fixed.
        source: Id of the source in the recipe.
        key: The item's key.
        crop: Number of the piece within its original, from 0.
        n_bytes: Size of the stored file.
        original: Facts of the original file.
        notes: What the source and the annotation table say that the manifest has no column for.
        box: The box of the original that it was cut from, None for the whole original.
    """

    row: Mapping[str, Any]
    source: str
    key: str
    crop: int
    n_bytes: int
    original: FileFacts
    notes: Mapping[str, Any]
    box: Box | None = None

    @property
    def order(self) -> tuple[str, str, int]:
        """The order of all tables of a dataset: source, key, crop."""
        return self.source, self.key, self.crop


def build_rows(
    spec: SourceSpec,
    records: Mapping[str, Record],
    table: Mapping[str, Annotation] | None,
    prompts: Mapping[str, str],
    recipe_name: str,
    *,
    paired: bool = False,
) -> tuple[list[Candidate], list[Refused]]:
    """Return the candidates and the refused items of one source.

    Args:
        spec: The source.
        records: Key -> record of every item.
        table: Key -> annotation, None without a table.
        prompts: `prompt_ref` -> prompt.
        recipe_name: Goes into the column `recipe`.
        paired: Other sources build on this one: an image without `content_id` gets its `source_id` as one.

    Raises:
        ConfigError: A field is missing or two places contradict each other.
    """
    candidates: list[Candidate] = []
    refused: list[Refused] = []
    for key in sorted(records):
        record = records[key]
        annotation = None if table is None else table.get(key)
        refusal = _refusal(record, annotation, annotated=table is not None)
        if refusal is not None:
            refused.append(Refused(spec.id, key, *refusal, record.sha256))
            continue
        # The same original is the same group in every recipe and under every name.
        fields = {"source_id": source_group(record.sha256 or "")}
        fields |= resolve_fields(spec, key, record.fields, annotation)
        if paired:
            fields.setdefault("content_id", fields["source_id"])
        prompt = prompts.get(annotation.prompt_ref or "") if annotation else None
        if prompt is not None:
            fields["prompt"] = prompt
        notes = {**record.notes, **(annotation.notes if annotation else {})}
        for crop, piece in enumerate(record.pieces):
            if piece.file is None or record.original is None:
                refused.append(
                    Refused(spec.id, piece_key(key, piece.box, crop), *(piece.refusal or ("", "")), record.sha256)
                )
                continue
            row = _row(fields, piece, piece.file) | {"recipe": recipe_name}
            candidates.append(Candidate(row, spec.id, key, crop, piece.file.n_bytes, record.original, notes, piece.box))
    return candidates, refused


def source_group(sha256: str) -> str:
    """Return the `source_id` of an original that nothing else groups, from the sha256 of its bytes.

    Example:
        >>> source_group("ab" * 32)
        'sha256:abababababababab'
    """
    return f"sha256:{sha256[:16]}"


def piece_key(key: str, box: Box | None, crop: int | None = None) -> str:
    """Return how the tables of a dataset name a piece of an original.

    Example:
        >>> piece_key("a.webp", Box(0, 68, 400, 400), 2)
        'a.webp#box=0,68,400,400#crop2'
    """
    return key + ("" if box is None else f"#box={box}") + ("" if crop is None else f"#crop{crop}")


def _refusal(record: Record, annotation: Annotation | None, annotated: bool) -> tuple[str, str] | None:
    if annotated and annotation is None:
        return NOT_ANNOTATED, "Expected a row in the annotation table, got none."
    if annotation is not None and annotation.drop_reason is not None:
        return annotation.drop_reason, "Dropped by the annotation table."
    if record.refusal is not None:
        return record.refusal
    if annotation is not None and record.original is not None:
        for name, wanted in annotation.facts.items():
            found = getattr(record.original, name)
            if found != wanted:
                return NOT_AS_ANNOTATED, f"Expected `{name}` {wanted} as in the annotation table, got {found}."
    return None


def resolve_fields(
    spec: SourceSpec, key: str, given: Mapping[str, Any], annotation: Annotation | None
) -> dict[str, Any]:
    """Return the item fields of one item: the recipe's constants, overruled by the source, overruled by the table.

    Without a `source_id` from any of them, `build_rows` groups by the bytes of the original.

    Raises:
        ConfigError: The label or the licence is missing, a generated image lacks its generator or paradigm, or two
            places give different labels.
    """
    where = f"source {spec.id!r}, item {key!r}"
    given = {name: item_field(name, value, where) for name, value in given.items()}
    stated = annotation.fields if annotation else {}
    constant = {name: v for name, v in (("label", spec.label), ("licence", spec.licence)) if v is not None}
    labels = {place["label"] for place in (constant, given, stated) if "label" in place}
    if len(labels) != 1:
        got = "none" if not labels else "real in one place and generated in another"
        raise ConfigError(
            f"Expected one label from the recipe, the source or the annotation table, got {got} ({where})."
        )
    defaults = {"source": spec.id, "decoder": "unknown"}
    if labels == {REAL}:
        defaults |= {"generator": CAMERA, "paradigm": CAMERA}
    fields = defaults | constant | dict(spec.fields) | given | dict(stated)
    for name in ("licence", "generator", "paradigm"):
        if name not in fields:
            raise ConfigError(
                f"Expected `{name}` from the recipe, the source or the annotation table, got none ({where})."
            )
    is_camera = {fields["generator"] == CAMERA, fields["paradigm"] == CAMERA, labels == {REAL}}
    if len(is_camera) > 1:
        raise ConfigError(
            f"Expected generator and paradigm '{CAMERA}' exactly for real images, got label {fields['label']}, "
            f"generator {fields['generator']!r}, paradigm {fields['paradigm']!r} ({where})."
        )
    return fields


def _row(fields: Mapping[str, Any], piece: Piece, file: FileFacts) -> dict[str, Any]:
    prompt = fields.get("prompt")
    words = {} if prompt is None else {"prompt_words": len(prompt.split()), "prompt_id": prompt_id(prompt)}
    return {
        **words,
        **fields,
        "image_id": file.sha256,
        "path": image_path(file.sha256, file.codec),
        "width_px": file.width_px,
        "height_px": file.height_px,
        "codec": file.codec,
        "jpeg_quality": file.jpeg_quality,
        "phash": piece.phash,
    }


def prompt_id(prompt: str) -> str:
    r"""Return the id of a prompt: equal for prompts that differ in case, spacing or Unicode form only.

    Example:
        >>> prompt_id("A red  fox") == prompt_id("a red fox\n")
        True
    """
    return sha256_bytes(normal_prompt(prompt).encode("utf-8"))[:16]


def normal_prompt(prompt: str) -> str:
    """Return the prompt without differences of case, spacing and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def origin(candidate: Candidate) -> dict[str, Any]:
    """Return the row of `origins.parquet`: what the image was before it was aligned."""
    original = candidate.original
    return {
        "image_id": candidate.row["image_id"],
        "source": candidate.source,
        "key": piece_key(candidate.key, candidate.box),
        "crop": candidate.crop,
        "original_sha256": original.sha256,
        "width_px": original.width_px,
        "height_px": original.height_px,
        "n_bytes": original.n_bytes,
        "codec": original.codec,
        "jpeg_quality": original.jpeg_quality,
        "stored_n_bytes": candidate.n_bytes,
        "notes": canonical_json(dict(candidate.notes)),
    }
