"""What a file says about its own origin: its C2PA manifest, and the marks of generators and cameras in its metadata.

Apart from the detector on purpose. The detector looks at pixels; this looks at words that somebody wrote into the file.
A manifest or a mark can be taken out by saving again, and a mark can be written by anyone, so their absence proves
nothing and their presence is a claim. Nothing raises, whatever the bytes: the service calls this on hostile files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from forgery_det.serving.page.c2pa_manifest import Manifest, bare, read_manifest
from forgery_det.serving.page.metadata_blocks import Block, metadata_blocks
from forgery_det.serving.page.metadata_fields import exif_fields, iptc_fields, tidy, xmp_fields
from forgery_det.serving.page.origin_marks import Field, Mark, origin_marks

MAX_FIELDS = 60
"""Named values that are kept of one file."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a file says about itself.

    Args:
        c2pa: The signed manifest, or why there is none.
        marks: Claims about the origin found in other metadata.
        fields: The named values, as they stand in the file.
    """

    c2pa: Manifest
    marks: tuple[Mark, ...]
    fields: tuple[Field, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "c2pa": self.c2pa.to_json(),
            "marks": [asdict(mark) for mark in self.marks],
            "fields": [asdict(field) for field in self.fields],
        }


def provenance(data: bytes, *, trust_anchors: str = "") -> Provenance:
    r"""Return what a file says about its own origin.

    Args:
        data: The whole file, whatever it is.
        trust_anchors: Root certificates in PEM for the signers of C2PA manifests.

    Example:
        >>> found = provenance(b"\xff\xd8\xff\xfe\0\x25Steps: 20, Sampler: Euler a, Seed: 1\xff\xd9")
        >>> found.c2pa.state, found.marks[0].generator
        ('absent', 'Stable Diffusion web UI')
    """
    fields: list[Field] = []
    for field in _fields(metadata_blocks(data)):
        if field not in fields:
            fields.append(field)
        if len(fields) == MAX_FIELDS:
            break
    manifest = read_manifest(data, trust_anchors=trust_anchors)
    outside = next((field.value for field in fields if field.key == "dcterms:provenance"), "")
    if manifest.state == "absent" and outside:
        manifest = bare("remote", outside)
    return Provenance(manifest, origin_marks(fields), tuple(fields))


def _fields(blocks: tuple[Block, ...]) -> Iterator[Field]:
    for block in blocks:
        if block.kind == "text":
            yield Field("text", tidy(block.key), tidy(block.payload.decode("utf-8", "replace")))
        elif block.kind == "comment":
            yield Field("comment", "", tidy(block.payload.decode("utf-8", "replace")))
        else:
            for key, value in _READERS[block.kind](block.payload):
                yield Field(block.kind, key, value)


_READERS = {"exif": exif_fields, "xmp": xmp_fields, "iptc": iptc_fields}
