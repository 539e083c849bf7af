"""One original becomes stored images: decode, cut the boxes, filter, crop, align, hash, write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL
from PIL import features

from forgery_det.core.artefacts import sha256_bytes, write_bytes
from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import ImageFacts, decode_image
from forgery_det.recipes.align import align_image
from forgery_det.recipes.annotations import Annotation
from forgery_det.recipes.boxes import cut_box
from forgery_det.recipes.crop import crops
from forgery_det.recipes.filter import refusal
from forgery_det.recipes.phash import phash
from forgery_det.recipes.recipe import AlignPolicy, CropPolicy, FilterPolicy
from forgery_det.recipes.sources.base import SourceItem
from forgery_det.recipes.work import FileFacts, Piece, Record
from forgery_det.transforms.preprocess import ImageArray

_SUFFIXES = {"jpeg": "jpg", "tiff": "tif"}


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done to every original of one source.

    Args:
        filter: Which originals and crops are refused.
        crops: How many pieces of each become images.
        align: Size and codec of the stored images; None stores the original bytes.
    """

    filter: FilterPolicy
    crops: CropPolicy
    align: AlignPolicy | None

    def check(self) -> None:
        """Try the policies on a blank image, so that a mistake shows before anything is downloaded.

        Raises:
            ConfigError: A policy is out of range.
        """
        crops(np.zeros((8, 8, 3), np.uint8), self.crops)
        if self.align is not None:
            side = self.align.short_side_px or 8
            align_image(np.zeros((max(side, 1), max(side, 1), 3), np.uint8), self.align)


def encoder_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the stored bytes."""
    libraries = ("avif", "jpg", "webp", "zlib")
    return {"pillow": PIL.__version__} | {name: str(features.version(name)) for name in libraries}


def image_path(image_id: str, codec: str) -> str:
    """Return where an image is stored below the dataset folder.

    Example:
        >>> image_path("ab" * 32, "jpeg")[:16]
        'images/ab/ababab'
    """
    return f"images/{image_id[:2]}/{image_id}.{image_suffix(codec)}"


def image_suffix(codec: str) -> str:
    """Return the suffix of files of a codec, without the dot.

    Example:
        >>> image_suffix("jpeg"), image_suffix("webp")
        ('jpg', 'webp')
    """
    return _SUFFIXES.get(codec, codec)


def process(item: SourceItem, steps: Steps, out: Path, annotation: Annotation | None = None) -> Record:
    """Bring one item into the dataset folder and return what became of it.

    Args:
        item: The item.
        steps: What is done to it.
        out: Dataset folder.
        annotation: Its row in the table, which may name boxes.

    Raises:
        ConfigError: A box leaves the image.
        OSError: An image cannot be written.
    """
    boxes = annotation.boxes if annotation else ()
    if item.refusal is not None or item.data is None:
        unread = item.refusal is None
        record = Record(item.key, item.stamp, unread=unread, fields=item.fields, refusal=item.refusal, boxes=boxes)
        return replace(record, notes=item.notes)
    sha256 = sha256_bytes(item.data)
    record = Record(item.key, item.stamp, sha256=sha256, fields=item.fields, boxes=boxes, notes=item.notes)
    try:
        decoded = decode_image(item.data)
    except ImageError as error:
        return replace(record, refusal=(error.reason, error.detail))
    record = replace(record, original=_file_facts(sha256, decoded.facts))
    if annotation is None or not boxes:
        if steps.align is None and steps.crops == CropPolicy():
            refused = refusal(decoded.image_HWC, decoded.facts, steps.filter)
            return replace(record, refusal=refused, pieces=() if refused else (_store(item.data, out),))
        pieces, refused = _pieces(decoded.image_HWC, decoded.facts, steps, out)
        return replace(record, pieces=pieces, refusal=refused)
    cut: list[Piece] = []
    for box in boxes:
        pieces, refused = _pieces(cut_box(decoded.image_HWC, box, annotation.where), decoded.facts, steps, out)
        cut += [replace(piece, box=box) for piece in pieces or (Piece(refusal=refused),)]
    return replace(record, pieces=tuple(cut))


def _file_facts(sha256: str, facts: ImageFacts) -> FileFacts:
    return FileFacts(sha256, facts.width_px, facts.height_px, facts.n_bytes, facts.codec, facts.jpeg_quality)


_Refusal = tuple[str, str] | None


def _pieces(image_HWC: ImageArray, facts: ImageFacts, steps: Steps, out: Path) -> tuple[tuple[Piece, ...], _Refusal]:
    """Return the pieces of an image, or none and the refusal of the image as a whole."""
    refused = refusal(image_HWC, facts, steps.filter)
    if refused is not None:
        return (), refused
    pieces = []
    for crop_HWC in crops(image_HWC, steps.crops):
        # A crop can be flat where the whole picture is not: an empty sky says nothing about its maker.
        refused = refusal(crop_HWC, facts, steps.filter)
        if refused is None:
            try:
                pieces.append(_store(_encoded(crop_HWC, steps), out))
                continue
            except ImageError as error:
                refused = (error.reason, error.detail)
        pieces.append(Piece(refusal=refused))
    if not pieces:
        size = f"{image_HWC.shape[1]} x {image_HWC.shape[0]} px"
        return (), ("too_small", f"Expected room for one crop of {steps.crops.size_px} px, got {size}.")
    return tuple(pieces), None


def _encoded(image_HWC: ImageArray, steps: Steps) -> bytes:
    # Crops without alignment still have to be stored: without loss, as the recipe asked for no codec.
    policy = steps.align or AlignPolicy(short_side_px=None, max_side_px=None, codec="png", quality=None)
    return align_image(image_HWC, policy)


def _store(data: bytes, out: Path) -> Piece:
    stored = decode_image(data)
    file = _file_facts(sha256_bytes(data), stored.facts)
    path = out / image_path(file.sha256, file.codec)
    if not _is_whole(path, file):
        write_bytes(path, data)
    return Piece(file, phash(stored.image_HWC))


def _is_whole(path: Path, file: FileFacts) -> bool:
    # Atomic writing leaves no partial file under this name, so the size tells a damaged one.
    return path.is_file() and path.stat().st_size == file.n_bytes
