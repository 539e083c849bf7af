"""What the metadata of a file claims about its origin: marks of known generators, kinds of source, cameras.

A mark is a claim of the file, never a finding of the detector. Metadata is dropped by most messengers and is written by
anyone who likes, so neither a mark nor its absence proves anything; `docs/page.md` says so to the reader. A new
generator is one line in `_MARKS`.

Kinds of source are the IPTC's NewsCodes `digitalsourcetype`, which C2PA and XMP share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Says = Literal["generated", "edited_with_ai", "composite", "drawn", "captured", "other"]

SOURCE_TYPES: dict[str, tuple[Says, str]] = {
    "trainedAlgorithmicMedia": ("generated", "made by a trained model"),
    "algorithmicMedia": ("generated", "made by an algorithm, not by a trained model"),
    "compositeWithTrainedAlgorithmicMedia": ("edited_with_ai", "edited with parts made by a trained model"),
    "compositeSynthetic": ("composite", "put together, with generated parts"),
    "compositeCapture": ("composite", "put together from several captures"),
    "composite": ("composite", "put together from several pictures"),
    "humanEdits": ("other", "edited by people"),
    "minorHumanEdits": ("other", "lightly edited by people"),
    "algorithmicallyEnhanced": ("other", "enhanced by an algorithm"),
    "dataDrivenMedia": ("other", "drawn from data"),
    "digitalArt": ("drawn", "drawn by people with software"),
    "digitalCreation": ("drawn", "made by people with software"),
    "virtualRecording": ("other", "recorded from a virtual scene"),
    "screenCapture": ("other", "a capture of a screen"),
    "digitalCapture": ("captured", "captured by a camera"),
    "computationalCapture": ("captured", "captured by a camera that computes the picture from several"),
    "negativeFilm": ("captured", "scanned from negative film"),
    "positiveFilm": ("captured", "scanned from positive film"),
    "print": ("captured", "scanned from a print"),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One named value of the metadata.

    Args:
        kind: `text`, `exif`, `xmp`, `iptc` or `comment`.
        key: Its name in that kind; empty for a comment.
        value: Printable text, cut to a bound.
    """

    kind: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One claim about the origin.

    Args:
        says: What the claim amounts to.
        generator: The program that it names, None if none.
        where: The field that makes the claim.
        why: The claim in words.
    """

    says: Says
    generator: str | None
    where: str
    why: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """A generator known by the name of a field, by a pattern in its value, or by both (all patterns are bounded)."""

    generator: str
    key: str
    value: str = ""

    def fits(self, field: Field) -> bool:
        is_key = re.fullmatch(self.key, field.key, re.IGNORECASE) is not None
        return is_key and re.search(self.value, field.value, re.IGNORECASE) is not None


_PROGRAM_FIELDS = (
    r"(?:tiff:)?Software|HostComputer|xmp:CreatorTool|OriginatingProgram|(?:photoshop:)?(?:Credit|Source)|"
    r"Iptc4xmpExt:AISystemUsed|By-line|Artist|Make|Model|Generator|Title"
)
_MARKS = (
    _Rule("ComfyUI", r"prompt", r'"class_type"'),
    _Rule("ComfyUI", r"workflow", r'"nodes"'),
    _Rule("ComfyUI", r"Make|Model|ImageDescription|UserComment", r"^(?:prompt|workflow):\s?\{"),
    _Rule("Fooocus", r"fooocus_scheme"),
    _Rule("SwarmUI", r"parameters|UserComment", r'"sui_image_params"'),
    _Rule("Stable Diffusion web UI", r"parameters|UserComment|", r"\bSteps: ?\d{1,4}, ?(?:Sampler|Schedule|CFG|Seed)"),
    _Rule("InvokeAI", r"invokeai_\w{1,20}|sd-metadata|Dream"),
    _Rule(
        "NovelAI", r"Software|Title|Comment", r"^NovelAI\b|\"uc\":.{0,4000}\"sampler\":|\"sampler\":.{0,4000}\"uc\":"
    ),
    _Rule("Easy Diffusion", r"use_stable_diffusion_model"),
    _Rule("Midjourney", r"Description|ImageDescription|dc:description", r"\bJob ID: ?[0-9a-f-]{36}|\s--v \d"),
    _Rule("a generator under China's labelling rule", r"(?:TC260:)?AIGC", r'"?Label"?\s?:\s?"?1'),
    _Rule("Adobe Firefly", _PROGRAM_FIELDS, r"\bAdobe[ _]Firefly\b"),
    _Rule("OpenAI", _PROGRAM_FIELDS, r"\bDALL.?E\b|\bOpenAI\b|\bChatGPT\b|\bgpt-image"),
    _Rule("Google AI", _PROGRAM_FIELDS, r"\b(?:Made|Edited) with Google AI\b|\bGoogle Imagen\b"),
    _Rule("Midjourney", _PROGRAM_FIELDS, r"\bMidjourney\b"),
    _Rule("Stable Diffusion", _PROGRAM_FIELDS, r"\bStable ?Diffusion\b|\bDreamStudio\b|\bStability AI\b"),
    _Rule("Black Forest Labs", _PROGRAM_FIELDS, r"\bBlack Forest Labs\b|\bFLUX\.\d"),
    _Rule("Bing Image Creator", _PROGRAM_FIELDS, r"\bBing Image Creator\b|\bMicrosoft Designer\b"),
    _Rule("Ideogram", _PROGRAM_FIELDS, r"\bIdeogram\b"),
    _Rule("Leonardo.Ai", _PROGRAM_FIELDS, r"\bLeonardo\.?Ai\b"),
    _Rule("Recraft", _PROGRAM_FIELDS, r"\bRecraft\b"),
    _Rule("Draw Things", _PROGRAM_FIELDS, r"^Draw Things\b"),
)


def source_type(value: str) -> tuple[Says, str] | None:
    """Return what a `digitalsourcetype` address says, None for an unknown one.

    Example:
        >>> source_type("http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
        ('generated', 'made by a trained model')
    """
    return SOURCE_TYPES.get(value.rstrip("/ ").rsplit("/", 1)[-1].rsplit(":", 1)[-1])


def origin_marks(fields: Iterable[Field]) -> tuple[Mark, ...]:
    """Return the claims of the fields, each generator once.

    Example:
        >>> origin_marks([Field("exif", "Software", "Adobe Firefly 3")])[0].generator
        'Adobe Firefly'
        >>> origin_marks([Field("exif", "Software", "GIMP 2.10")])
        ()
    """
    known = tuple(fields)
    marks: dict[tuple[str, str | None], Mark] = {}
    for field in known:
        for rule in _MARKS:
            if rule.fits(field):
                says: Says = "edited_with_ai" if "edited with" in field.value.lower() else "generated"
                mark = Mark(says, rule.generator, _where(field), f"This field is written by {rule.generator}.")
                marks.setdefault((says, rule.generator), mark)
        kind = source_type(field.value) if "DigitalSource" in field.key else None
        if kind:
            marks.setdefault((kind[0], field.value), Mark(kind[0], None, _where(field), f"It says: {kind[1]}."))
    camera = _camera(known)
    if camera and not any(mark.says == "generated" for mark in marks.values()):
        marks["captured", camera] = Mark("captured", None, "EXIF Make and Model", f"It names a camera: {camera}.")
    return tuple(marks.values())


def _camera(fields: tuple[Field, ...]) -> str:
    """Return maker and model when both are named."""
    by_key = {field.key: field.value for field in fields if field.kind == "exif"}
    make, model = by_key.get("Make", ""), by_key.get("Model", "")
    if not make or not model:
        return ""
    return (model if model.startswith(make) else f"{make} {model}")[:120]


_KIND_NAMES = {"text": "PNG text", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "comment": "comment"}


def _where(field: Field) -> str:
    return f"{_KIND_NAMES.get(field.kind, field.kind)} {field.key}".strip()
