"""Read the C2PA manifest of a file (Content Credentials): who signed it, what it claims, and whether it still holds.

The signed statement binds to the pixels by a hash, so a picture that was changed after signing does not validate. What
a valid signature proves: that the holder of this certificate made this statement about these bytes. Not that the
statement is true, and, since no trust list is shipped, not who the holder is (pass `trust_anchors` to check).

The parser is the official library (c2pa-python, extra `serve`). It is kept from the network: neither remote manifests
nor revocation lists are fetched. It only sees files that hold a manifest's box marker and are below `MAX_BYTES`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from forgery_det.core.errors import ImageError
from forgery_det.core.image_sniff import sniff_codec
from forgery_det.serving.page.metadata_fields import tidy
from forgery_det.serving.page.origin_marks import Says, source_type

State = Literal["absent", "trusted", "valid", "invalid", "unreadable", "not_installed", "too_large", "remote"]

MAX_BYTES = 100 * 2**20
"""Larger files are not handed to the parser."""

_MARKER = b"jumb"  # the box type of JUMBF (ISO/IEC 19566-5), in which every embedded manifest lies
_MAX_ITEMS = 20
_MAX_JSON_CHARS = 4_000_000
_MIME = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "gif": "image/gif",
    "tiff": "image/tiff",
}
_WORDS: dict[State, str] = {
    "absent": "No manifest. That proves nothing: most files have none, and most services remove it.",
    "trusted": "The signature holds, the picture is unchanged since, and the signer is on the trust list.",
    "valid": "The signature holds and the picture is unchanged since. The signer was not checked against a trust list.",
    "invalid": "The manifest does not validate: the picture or the manifest was changed, the signature is wrong, or it "
    "breaks a rule of C2PA.",
    "unreadable": "There is something like a manifest, but it cannot be read.",
    "not_installed": "Not looked for: the package c2pa-python is not installed (pip install 'forgery-det[serve]').",
    "too_large": f"Not looked for: the file is above {MAX_BYTES // 2**20} MiB.",
    "remote": "The file names a manifest at an outside address. It was not fetched.",
}


@dataclass(frozen=True, slots=True)
class Action:
    """One step of the picture's making as the manifest tells it, such as `c2pa.created`."""

    action: str
    software: str
    source_type: str
    when: str


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A picture that went into this one."""

    title: str
    relationship: str
    codec: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a file's C2PA manifest says.

    Args:
        state: Whether there is one, and whether it holds.
        words: The state as a sentence.
        says: What the manifest's kinds of source amount to, None if it names none; only for a manifest that holds.
        claim_generator: The program that wrote it.
        signer: Name in the signing certificate; anybody can write any name into a certificate of his own.
        issuer: Organisation in the signing certificate.
        signed_at: Time by a time-stamping authority, empty without one.
        actions: Steps of the making.
        ingredients: Pictures that went in.
        problems: Codes of what failed, as the C2PA specification names them.
    """

    state: State
    words: str
    says: Says | None = None
    claim_generator: str = ""
    signer: str = ""
    issuer: str = ""
    signed_at: str = ""
    actions: tuple[Action, ...] = ()
    ingredients: tuple[Ingredient, ...] = ()
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def bare(state: State, *problems: str) -> Manifest:
    """Return a manifest of which only the state is known.

    Example:
        >>> bare("absent").words
        'No manifest. That proves nothing: most files have none, and most services remove it.'
    """
    return Manifest(state, _WORDS[state], problems=tuple(tidy(problem)[:300] for problem in problems))


def read_manifest(data: bytes, *, trust_anchors: str = "") -> Manifest:
    """Return what the C2PA manifest in a file says; never raises, whatever the bytes.

    Args:
        data: The whole file.
        trust_anchors: Root certificates in PEM; a signer below one of them is `trusted`.

    Example:
        >>> read_manifest(b"no picture at all").state
        'absent'
    """
    if _MARKER not in data:
        return bare("absent")
    if len(data) > MAX_BYTES:
        return bare("too_large")
    try:
        import c2pa  # type: ignore[import-untyped]  # here: an optional package with a native library
    except ImportError:
        return bare("not_installed")
    try:
        mime = _MIME[sniff_codec(data, tuple(_MIME))]
        with c2pa.Reader(mime, io.BytesIO(data), context=_context(trust_anchors)) as reader:
            text = reader.json()
        if len(text) > _MAX_JSON_CHARS:
            return bare("unreadable", f"Expected at most {_MAX_JSON_CHARS} characters of JSON, got {len(text)}.")
        return _told(json.loads(text))
    except ImageError as error:
        return bare("unreadable", str(error))
    except c2pa.C2paError.ManifestNotFound:
        return bare("absent")
    except (c2pa.C2paError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # The bytes are hostile until shown otherwise: whichever field is of a wrong type, the answer is the same.
        return bare("unreadable", f"{type(error).__name__.lstrip('_')}: {error}")


@lru_cache(maxsize=4)
def _context(trust_anchors: str) -> Any:
    """Return settings that keep the parser off the network."""
    import c2pa

    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    if trust_anchors:
        settings["trust"] = {"trust_anchors": trust_anchors}
    return c2pa.Context.from_dict(settings)


def _told(store: dict[str, Any]) -> Manifest:
    active = store["manifests"][store["active_manifest"]]
    states: dict[str, State] = {"Trusted": "trusted", "Valid": "valid", "Invalid": "invalid"}
    state = states.get(str(store.get("validation_state")), "invalid")
    signature = active.get("signature_info") or {}
    actions = tuple(_actions(active.get("assertions") or ()))[:_MAX_ITEMS]
    return Manifest(
        state=state,
        words=_WORDS[state],
        says=_says(actions) if state != "invalid" else None,
        claim_generator=_program(active),
        signer=_short(signature.get("common_name")),
        issuer=_short(signature.get("issuer")),
        signed_at=_short(signature.get("time")),
        actions=actions,
        ingredients=tuple(
            Ingredient(_short(one.get("title")), _short(one.get("relationship")), _short(one.get("format")))
            for one in (active.get("ingredients") or ())[:_MAX_ITEMS]
        ),
        problems=tuple(
            dict.fromkeys(_short(one.get("code")) for one in (store.get("validation_status") or ())[:_MAX_ITEMS])
        ),
    )


def _actions(assertions: Iterable[dict[str, Any]]) -> Iterable[Action]:
    for assertion in assertions:
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in assertion["data"].get("actions") or ():
                agent = action.get("softwareAgent") or ""
                yield Action(
                    action=_short(action.get("action")),
                    software=_named(agent) if isinstance(agent, dict) else _short(agent),
                    source_type=_short(action.get("digitalSourceType")),
                    when=_short(action.get("when")),
                )


_GRAVITY: tuple[Says, ...] = ("generated", "edited_with_ai", "composite", "drawn", "captured", "other")


def _says(actions: Iterable[Action]) -> Says | None:
    """Return the gravest of what the actions say: one generated part outweighs a capture."""
    found = {kind[0] for kind in (source_type(action.source_type) for action in actions) if kind}
    # A capture that was later edited with generated parts is not a generated picture, though an action says so.
    if "generated" in found and "captured" in found:
        return "edited_with_ai"
    return next((says for says in _GRAVITY if says in found), None)


def _program(active: dict[str, Any]) -> str:
    infos = active.get("claim_generator_info") or ()
    return _named(infos[0]) if infos else _short(active.get("claim_generator"))


def _named(info: dict[str, Any]) -> str:
    return f"{_short(info.get('name'))} {_short(info.get('version'))}".strip()


def _short(value: Any) -> str:
    """Return a value of the manifest as short printable text; None is empty."""
    return "" if value is None else tidy(str(value))[:300]
