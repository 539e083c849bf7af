r"""The journal of a prompt set: every answer that was ever paid for, one JSON line each, whatever became of it.

    .work/prompts-<set>.jsonl    {"key": ..., "model": {...}, "instruction": ..., "parent": ..., "reply": {...}}

A line is found by its request: model, instruction, text, seed, image. So an answer serves every version of a recipe
that would ask for it again, and a changed instruction finds none. A line that a kill cut short is dropped; a whole line
that cannot be read stays, unused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from forgery_det.core.artefacts import canonical_json
from forgery_det.recipes.prompting.base import TextReply, TextRequest
from forgery_det.recipes.work import WORK_NAME

_PREFIX = "prompts-"


def journal_path(out: Path, name: str) -> Path:
    """Return where the journal of a set lies.

    Example:
        >>> journal_path(Path("d"), "captions").as_posix()
        'd/.work/prompts-captions.jsonl'
    """
    return out / WORK_NAME / f"{_PREFIX}{name}.jsonl"


def is_prompt_journal(path: Path) -> bool:
    """Return whether a file of `.work` is the journal of a prompt set.

    Example:
        >>> is_prompt_journal(Path("d/.work/prompts-captions.jsonl")), is_prompt_journal(Path("d/.work/0f3a.jsonl"))
        (True, False)
    """
    return path.name.startswith(_PREFIX)


class PromptJournal:
    """The answers of one set; a context manager that holds the file open.

    Args:
        path: The file; made if absent.
    """

    def __init__(self, path: Path) -> None:
        self._replies: dict[str, TextReply] = {}
        whole = self._read(path) if path.is_file() else 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def _read(self, path: Path) -> int:
        """Take in all lines that can be read; return the number of bytes that whole lines fill."""
        whole = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                try:
                    entry: Any = json.loads(line)
                    self._replies[entry["key"]] = TextReply(**entry["reply"])
                except (ValueError, TypeError, KeyError):
                    # Damaged, or of another version of the tool: it stays, as what follows it may have been paid for.
                    continue
        return whole

    def reply(self, key: str) -> TextReply | None:
        """Return the answer to a request, None where there is none yet."""
        return self._replies.get(key)

    def add(self, key: str, request: TextRequest, model: Mapping[str, Any], reply: TextReply) -> None:
        """Write an answer down; past this call it survives the process."""
        entry = {
            "key": key,
            "model": dict(model),
            "instruction": request.instruction,
            "parent": request.text,
            "image_sha256": None if request.image is None else request.image.sha256,
            "seed": request.seed,
            "reply": asdict(reply),
        }
        self._file.write(canonical_json(entry).encode("utf-8") + b"\n")
        self._file.flush()
        self._replies[key] = reply

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()
