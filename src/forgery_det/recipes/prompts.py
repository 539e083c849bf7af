"""Prompts of generated images, read from where the recipe says they lie."""

from __future__ import annotations

import json
from pathlib import Path

from forgery_det.core.artefacts import canonical_json, sha256_bytes, write_json
from forgery_det.core.errors import SourceError
from forgery_det.core.progress import ProgressSink, silent
from forgery_det.recipes.recipe import PromptSpec
from forgery_det.recipes.sources.base import SourceContext, read_all
from forgery_det.recipes.sources.registry import PROMPT_FORMATS, SOURCES
from forgery_det.recipes.work import WORK_NAME


def read_prompts(
    spec: PromptSpec | None, refs: set[str], out: Path, cache: Path, progress: ProgressSink = silent
) -> dict[str, str]:
    """Return `prompt_ref` -> prompt; kept beside the journals, so that a finished build opens no package again.

    Args:
        spec: Where the prompts lie; None gives no prompts.
        refs: `<member>#<node ref>`.
        out: Dataset folder.
        cache: Folder of downloads.
        progress: Told about downloads.

    Raises:
        SourceError: The source lacks a member, or the member has no such prompt.
    """
    if spec is None or not refs:
        return {}
    source = SOURCES.get(spec.kind)(spec.parameters, SourceContext("prompts", spec.folder, cache, progress))
    deciding = canonical_json([spec.format, spec.kind, source.identity(), sorted(refs)])
    path = out / WORK_NAME / f"prompts-{sha256_bytes(deciding.encode('utf-8'))[:32]}.json"
    if source.pinned and path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    read = PROMPT_FORMATS.get(spec.format)
    members = read_all(source, {ref.partition("#")[0] for ref in refs})
    prompts = {}
    for ref in sorted(refs):
        member, _, node_ref = ref.partition("#")
        if member not in members:
            raise SourceError(
                f"Expected the member {member!r} in the source of prompts, got none (prompt_ref {ref!r})."
            )
        try:
            prompts[ref] = read(members[member], node_ref)
        except SourceError as error:
            raise SourceError(f"{error} (prompt_ref {ref!r})") from error
    for stale in path.parent.glob("prompts-*.json"):
        stale.unlink()
    write_json(path, prompts)
    return prompts
