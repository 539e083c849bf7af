"""Reading a prompt set: rows as given, longer levels written out of them, and what the guards refuse.

    rows -> (captions) -> v0 -> v1 -> v2
              guards      guards guards

A text that a guard refuses goes to the quarantine, and nothing is written out of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.recipes.prompt_sets import Prompt, PromptContext, PromptSet, PromptSetSpec, RefusedPrompt
from forgery_det.recipes.prompting.base import PromptRow, TextFailure, TextReply, TextRequest
from forgery_det.recipes.prompting.clip_tokens import CountTokens, token_counter
from forgery_det.recipes.prompting.guards import check_reply, check_text, clean_text, word_count
from forgery_det.recipes.prompting.journal import PromptJournal, journal_path
from forgery_det.recipes.prompting.registry import PROMPT_KINDS
from forgery_det.recipes.prompting.table import Text, record
from forgery_det.recipes.prompting.writer import Writer
from forgery_det.recipes.rows import normal_prompt


def read_prompt_set(spec: PromptSetSpec, context: PromptContext) -> PromptSet:
    """Return the prompts of a set; every text that a model wrote is asked for once, however often the set is read.

    Args:
        spec: The set.
        context: Dataset folder, cache, images to describe, progress.

    Raises:
        ConfigError: A tokenizer or a column is not there.
        SourceError: The prompts cannot be read, or the model answers nothing.
    """
    # First: a tokenizer that is not there shall show before a text is paid for.
    count = token_counter(spec.tokenizer, spec.folder)
    rows = PROMPT_KINDS.get(spec.kind)(spec.parameters, spec.folder, context).rows()
    with PromptJournal(journal_path(context.out, spec.name)) as journal:
        firsts = _captioned(rows, spec, context, journal) if spec.caption else _given(rows, spec)
        ideas = [[text] for text in firsts]
        if len(spec.levels) > 1:
            _grow(ideas, spec, context, journal)
    return _collected(spec, ideas, count)


def prompt_id_of(text: str, content_id: str) -> str:
    """Return the id of an idea: equal for equal content and first texts that differ in case and spacing only.

    Example:
        >>> prompt_id_of("A red  fox", "1") == prompt_id_of("a red fox", "1") != prompt_id_of("a red fox", "2")
        True
    """
    normal = normal_prompt(text)
    return sha256_bytes(f"{len(normal)}:{normal}{content_id}".encode())[:16]


def seed_of(seed: int, name: str, level: str) -> int:
    """Return the seed of one request, in [0, 2^31): each prompt and level has its own.

    Example:
        >>> seed_of(0, "a", "v1") == seed_of(0, "a", "v1") != seed_of(0, "a", "v2")
        True
    """
    return int(sha256_bytes(f"{seed}:{level}:{name}".encode())[:8], 16) % 2**31


def _given(rows: Iterable[PromptRow], spec: PromptSetSpec) -> list[Text]:
    """Return the first texts of the set, as their source gives them; `limit` counts those that can be used."""
    firsts: list[Text] = []
    used: set[str] = set()
    for row in rows:
        if spec.limit is not None and len(used) >= spec.limit:
            break
        text = Text(row, spec.levels[0], row.texts.get(spec.levels[0], ""))
        if not text.text:
            text = replace(text, refusal=("empty", "Expected a prompt, got an empty cell."))
        firsts.append(_identified(text, used))
    return firsts


def _captioned(
    rows: Iterable[PromptRow], spec: PromptSetSpec, context: PromptContext, journal: PromptJournal
) -> list[Text]:
    """Return the first texts of the set, written from images; `limit` counts the images."""
    assert spec.caption is not None
    writer = Writer(spec.caption, spec.folder, journal, context.progress)
    level = spec.levels[0]
    requests: list[tuple[PromptRow, TextRequest]] = []
    for row in islice(rows, spec.limit):
        assert row.image is not None, row.place
        seed = seed_of(spec.caption.seed, row.image.sha256, level)
        requests.append((row, TextRequest(spec.caption.instruction, "", seed, row.image)))
    answers = writer.answers([request for _, request in requests], f"captions {spec.name}")
    used: set[str] = set()
    return [_identified(_written(Text(row, level), writer, request, answers), used) for row, request in requests]


def _grow(ideas: list[list[Text]], spec: PromptSetSpec, context: PromptContext, journal: PromptJournal) -> None:
    """Add the longer levels to each idea whose last text can be used."""
    writer = None if spec.expand is None else Writer(spec.expand, spec.folder, journal, context.progress)
    for level in spec.levels[1:]:
        requests: dict[int, TextRequest] = {}
        for index, texts in enumerate(ideas):
            parent = texts[-1]
            if parent.refusal is not None:
                continue
            if level in parent.row.texts:
                texts.append(_longer(parent, level))
            elif writer is None:
                refusal = ("missing_level", f"Expected a text for {level}, got none, and the set has no `expand`.")
                texts.append(replace(_longer(parent, level), refusal=refusal))
            else:
                seed = seed_of(writer.spec.seed, parent.prompt_id, level)
                requests[index] = TextRequest(writer.spec.instruction, parent.text, seed)
        if writer is not None:
            answers = writer.answers(requests.values(), f"prompts {spec.name} {level}")
            for index, request in requests.items():
                ideas[index].append(_written(_longer(ideas[index][-1], level), writer, request, answers))


def _longer(parent: Text, level: str) -> Text:
    text = parent.row.texts.get(level, "")
    refusal = check_text(text, parent.text) if text else None
    return replace(
        parent, level=level, text=text, parent=parent.text, refusal=refusal, request=None, reply=None, writer=None
    )


def _written(text: Text, writer: Writer, request: TextRequest, answers: dict[str, TextReply | TextFailure]) -> Text:
    """Return the text with what the model answered, and what the guards say about it."""
    answer = answers[writer.key(request)]
    text = replace(text, writer=writer, request=request)
    if isinstance(answer, TextFailure):
        return replace(text, refusal=(answer.reason, answer.detail))
    refusal = check_reply(answer, text.parent or "", writer.spec.language)
    return replace(text, text=clean_text(answer.text), reply=answer, refusal=refusal)


def _identified(text: Text, used: set[str]) -> Text:
    """Return the first text of an idea with the ids that all its levels share; refuse an idea that is there already."""
    content_id = text.row.content_id or f"prompt:{prompt_id_of(text.text, '')}"
    prompt_id = prompt_id_of(text.text, content_id)
    refusal = text.refusal
    if refusal is None and prompt_id in used:
        refusal = ("duplicate_prompt", "Expected each prompt of a content once, got it again.")
    if refusal is None:
        used.add(prompt_id)
    return replace(
        text,
        prompt_id=prompt_id,
        content_id=content_id,
        source_id=text.row.source_id or content_id,
        refusal=refusal,
    )


def _collected(spec: PromptSetSpec, ideas: Sequence[Sequence[Text]], count: CountTokens) -> PromptSet:
    prompts: list[Prompt] = []
    refused: list[RefusedPrompt] = []
    records = []
    for text in (text for texts in ideas for text in texts):
        tokens = count(text.text) if text.text else None
        records.append(record(spec.name, text, tokens))
        if text.refusal is not None:
            refused.append(RefusedPrompt(f"{text.prompt_id}/{text.level}", text.refusal[0], _at(text)))
            continue
        prompts.append(
            Prompt(
                prompt_id=text.prompt_id,
                content_id=text.content_id,
                level=text.level,
                text=text.text,
                words=word_count(text.text),
                clip_tokens=tokens,
                source_id=text.source_id,
            )
        )
    return PromptSet(spec.name, tuple(prompts), tuple(refused), tuple(records))


def _at(text: Text) -> str:
    assert text.refusal is not None
    return f"{text.refusal[1]} ({text.row.place})"
