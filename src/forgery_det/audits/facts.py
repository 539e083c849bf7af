"""Facts of files: of the stored ones, read from their bytes, and of the originals, from `origins.parquet`.

The quantisation tables of a JPEG are a fingerprint of the encoder: cameras, phones, libraries and platforms each have
their own (Kornblum, "Using JPEG quantization tables to identify imagery processed by software", 2008), while a quality
is only an estimate from them. They are kept as a short hash.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl

from forgery_det.audits.context import AuditContext
from forgery_det.core.errors import ImageError, ManifestError
from forgery_det.core.image_io import read_facts
from forgery_det.core.manifest import Manifest
from forgery_det.core.stored import read_stored

ORIGINS_NAME = "origins.parquet"
_SOI_BYTES, _DQT, _SOS, _FILL = 2, 0xDB, 0xDA, 0xFF

FACT_SCHEMA: dict[str, pl.DataType] = {
    "width_px": pl.Int64(),
    "height_px": pl.Int64(),
    "n_bytes": pl.Int64(),
    "codec": pl.String(),
    "jpeg_quality": pl.Int64(),
    "quantisation_tables": pl.String(),
    "chroma_subsampling": pl.String(),
    "progressive": pl.String(),
    "sample_format": pl.String(),
    "colour_profile": pl.String(),
    "exif": pl.String(),
}
"""What is known of a file. `sample_format` joins Pillow's mode and the bits of a sample."""


def read_stored_facts(frame: pl.DataFrame, manifest: Manifest) -> pl.DataFrame:
    """Return the rows of `frame` that can be read, with the facts of their files in place of the manifest's.

    Args:
        frame: Manifest rows.
        manifest: Says where the files are.
    """

    def one(path: str) -> dict[str, Any] | None:
        try:
            return facts_of(read_stored(manifest.image_file(path)))
        except (ImageError, OSError):
            return None

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(one, frame["path"]))
    kept = pl.Series([facts is not None for facts in found], dtype=pl.Boolean)
    facts = pl.DataFrame([facts for facts in found if facts is not None], schema=FACT_SCHEMA)
    return pl.concat([frame.filter(kept).drop(FACT_SCHEMA, strict=False), facts], how="horizontal")


def read_origins(context: AuditContext, frame: pl.DataFrame) -> tuple[pl.DataFrame | None, str]:
    """Return the rows of `frame` that `origins.parquet` knows, with its facts in place of the manifest's.

    Args:
        context: Says where the dataset is.
        frame: Manifest rows.

    Returns:
        The table, or None and the reason (a clause without a full stop).

    Raises:
        ManifestError: The file cannot be read.
    """
    path = context.manifest.root / ORIGINS_NAME
    if not path.is_file():
        return None, f"There is no {ORIGINS_NAME}"
    try:
        origins = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ManifestError(f"Expected a Parquet table, got nothing readable at {path}: {error}") from error
    known = [name for name in FACT_SCHEMA if name in origins.columns]
    if not known or "image_id" not in origins.columns:
        return None, f"{ORIGINS_NAME} holds none of {', '.join(FACT_SCHEMA)} by image_id"
    rows = frame.drop(FACT_SCHEMA, strict=False)
    return rows.join(origins.select("image_id", *known), on="image_id", how="inner", maintain_order="left"), ""


def facts_of(data: bytes) -> dict[str, Any]:
    """Return the facts of one file, keys as in `FACT_SCHEMA`; null where a fact is one of another codec.

    Raises:
        ImageError: Not a usable image.
    """
    facts = read_facts(data)
    is_jpeg = facts.codec == "jpeg"
    return {
        "width_px": facts.width_px,
        "height_px": facts.height_px,
        "n_bytes": facts.n_bytes,
        "codec": facts.codec,
        "jpeg_quality": facts.jpeg_quality,
        "quantisation_tables": quantisation_tables(data) if is_jpeg else None,
        "chroma_subsampling": facts.chroma_subsampling,
        "progressive": "yes" if facts.progressive else "no",
        "sample_format": f"{facts.mode} {facts.bit_depth} bit",
        "colour_profile": "embedded" if facts.has_icc else "none",
        "exif": "embedded" if facts.has_exif else "none",
    }


def quantisation_tables(data: bytes) -> str:
    """Return 8 hexadecimal digits that stand for all quantisation tables of a whole JPEG, in file order.

    Example:
        >>> import numpy as np
        >>> from forgery_det.core.image_io import encode_image
        >>> image = np.zeros((8, 8, 3), np.uint8)
        >>> quantisation_tables(encode_image(image, "jpeg", 75)) == quantisation_tables(encode_image(image, "jpeg", 90))
        False
    """
    digest = hashlib.sha256()
    position = _SOI_BYTES
    while position + 4 <= len(data):
        marker = data[position + 1]
        if marker == _FILL:
            position += 1
            continue
        if marker == _SOS:
            break
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        if marker == _DQT:
            digest.update(data[position + 4 : end])
        position = end
    return digest.hexdigest()[:8]
