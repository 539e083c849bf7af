"""Input images: the originals of another source, kept by their sha256 so that any worker can read any of them.

An index in the dataset's work folder remembers which original has which bytes, so that a second run reads none of them
again. It is a text file of JSON lines; a line that a kill cut short is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import read_facts
from forgery_det.recipes.generate.store import JobStore
from forgery_det.recipes.sources.base import Original, Peers

UNUSABLE = "input_unusable"
"""Stable word of the quarantine: the original that was to be reworked cannot be read."""


@dataclass(frozen=True, slots=True)
class InputImage:
    """An original that a generator reworks.

    Args:
        key: Its key in its own source.
        stamp: Its stamp there.
        sha256: Of its bytes; None when it cannot be used.
        width_px: Width after orientation.
        height_px: Height after orientation.
        source_id: What its row in the manifest says.
        content_id: What its row in the manifest says.
        refusal: Reason and detail when it cannot be used.
    """

    key: str
    stamp: str
    sha256: str | None
    width_px: int = 0
    height_px: int = 0
    source_id: str = ""
    content_id: str = ""
    refusal: tuple[str, str] | None = None


def input_images(peers: Peers, source_id: str, store: JobStore, work: Path | None) -> Iterator[InputImage]:
    """Yield the wanted originals of a source in its order, with their bytes in the store.

    Args:
        peers: The other sources of the recipe.
        source_id: The source that is read.
        store: Keeps the bytes.
        work: Folder of the index; None keeps no index.

    Raises:
        ConfigError: There is no such source.
        SourceError: The source cannot be read.
    """
    name = sha256_bytes(canonical_json(peers.identity(source_id)).encode("utf-8"))[:32]
    index = _Index(None if work is None else work / f"inputs-{name}.index")

    def skip(key: str, stamp: str) -> bool:
        known = index.known.get(key)
        return known is not None and known.stamp == stamp and _is_stored(known, store)

    for original in peers.originals(source_id, skip):
        item = original.item
        known = index.known.get(item.key)
        if item.data is None and item.refusal is None and known is not None:
            yield known
            continue
        image = _taken(original, store)
        index.add(image)
        yield image


def _is_stored(image: InputImage, store: JobStore) -> bool:
    return image.sha256 is None or store.input_path(image.sha256).is_file()


def _taken(original: Original, store: JobStore) -> InputImage:
    item = original.item
    if item.data is None:
        reason, detail = item.refusal or ("unreadable", "Expected the bytes of the original, got none.")
        return InputImage(item.key, item.stamp, None, refusal=(UNUSABLE, f"{reason}: {detail}"))
    try:
        facts = read_facts(item.data)
    except ImageError as error:
        return InputImage(item.key, item.stamp, None, refusal=(UNUSABLE, str(error)))
    sha256 = store.put_input(item.data)
    source_id = str(original.fields["source_id"])
    content_id = str(original.fields.get("content_id") or source_id)
    return InputImage(item.key, item.stamp, sha256, facts.width_px, facts.height_px, source_id, content_id)


class _Index:
    """Key -> input image, appended to a file as it grows."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.known: dict[str, InputImage] = {}
        if path is not None and path.is_file():
            self._read(path)

    def _read(self, path: Path) -> None:
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                entry: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
            except (json.JSONDecodeError, UnicodeDecodeError):
                entry = {}
            if not entry:
                break
            whole += len(line)
            refusal = entry["refusal"]
            image = InputImage(**(entry | {"refusal": None if refusal is None else (refusal[0], refusal[1])}))
            self.known[image.key] = image
        with path.open("ab") as file:
            file.truncate(whole)

    def add(self, image: InputImage) -> None:
        self.known[image.key] = image
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(canonical_json(asdict(image)).encode("utf-8") + b"\n")
