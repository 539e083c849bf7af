"""Prompt sets: the prompts that generating sources of a recipe share, as frozen dataclasses.

A set is read once a build (`prompting.read.read_prompt_set`), whatever number of sources use it:

    from (file, dataset, captions of real images) -> v0 -> expand -> v1 -> expand -> v2

One idea keeps one `prompt_id` and one `content_id` over its levels, so that a protocol can compare the same idea
written short and long, and a real image with the fakes made of its caption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgery_det.core.progress import ProgressSink, silent

PROMPTS_NAME = "prompts.parquet"
"""Table of a dataset folder: every prompt of every set, with what it was made from."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a set, ready to be used.

    Args:
        prompt_id: Names the idea; the same on every level.
        content_id: Pairs the fakes with the real image of the same content.
        level: `v0`, `v1` or `v2`.
        text: What the generator is given.
        words: Number of words, separated by white space.
        clip_tokens: Number of CLIP tokens with the start and end tokens, not cut at 77; None without a tokenizer.
        source_id: Group that must not straddle a split: that of the real image where the prompt describes one.
    """

    prompt_id: str
    content_id: str
    level: str
    text: str
    words: int
    clip_tokens: int | None
    source_id: str


@dataclass(frozen=True, slots=True)
class RefusedPrompt:
    """A prompt that cannot be used, for the quarantine.

    Args:
        key: `<prompt_id>/<level>`, or the place of a row that gave no prompt.
        reason: Stable word, such as `not_longer`.
        detail: A sentence for people.
    """

    key: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The prompts of a set.

    Args:
        name: Name of the set in its recipe.
        prompts: In the order of the source, and of the levels within an idea.
        refused: What cannot be used and why, in the same order.
        records: The rows of `prompts.parquet`, used and refused ones alike.
    """

    name: str
    prompts: tuple[Prompt, ...]
    refused: tuple[RefusedPrompt, ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()

    def at(self, levels: Iterable[str]) -> tuple[Prompt, ...]:
        """Return the prompts of the given levels, in the order of the set.

        Example:
            >>> short = Prompt("p", "c", "v0", "a fox", 2, None, "c")
            >>> [prompt.text for prompt in PromptSet("s", (short,)).at(["v0"])]
            ['a fox']
        """
        wanted = frozenset(levels)
        return tuple(prompt for prompt in self.prompts if prompt.level in wanted)


@dataclass(frozen=True, slots=True)
class ExpandSpec:
    """How longer levels are written.

    Args:
        kind: Name in the registry of text models.
        parameters: Instance of the kind's `Parameters`.
        instruction: What the model is told to do with a prompt.
        seed: Start of the seeds; each prompt and level has its own.
        language: Language that expansions must have (ISO 639-1); None: that of the prompt.
    """

    kind: str
    parameters: Any
    instruction: str
    seed: int = 0
    language: str | None = None


@dataclass(frozen=True, slots=True)
class PromptSetSpec:
    """A prompt set as the recipe states it.

    Args:
        name: Name of the set, unique within the recipe.
        kind: Name in the registry of prompt kinds.
        parameters: Instance of the kind's `Parameters`.
        folder: Relative paths start here: the folder of the recipe file that names the set.
        limit: Most ideas; None takes all.
        levels: Levels of the set, in the order in which they grow out of one another.
        caption: What writes the first level from images; None where the source gives texts.
        expand: How the levels are written that the source does not give; None where it gives all.
        tokenizer: Folder or hub name of a CLIP tokenizer; None leaves CLIP tokens uncounted.
    """

    name: str
    kind: str
    parameters: Any
    folder: Path
    limit: int | None = None
    levels: tuple[str, ...] = ("v0",)
    caption: ExpandSpec | None = None
    expand: ExpandSpec | None = None
    tokenizer: str | None = None

    def most_prompts(self) -> int | None:
        """Return the largest number of prompts that the set can have; None while only reading it can tell.

        Example:
            >>> PromptSetSpec("s", "prompt_file", None, Path(), limit=10, levels=("v0", "v1")).most_prompts()
            20
        """
        return None if self.limit is None else self.limit * len(self.levels)


@dataclass(frozen=True, slots=True)
class ContentImage:
    """A real image that a prompt is to describe.

    Args:
        key: The item's key in its source.
        content_id: Its `content_id` in the manifest.
        source_id: Its `source_id` in the manifest.
        sha256: Of the file that is shown to the model.
        path: That file: the aligned image of the dataset.
    """

    key: str
    content_id: str
    source_id: str
    sha256: str
    path: Path


def no_images(source_id: str) -> tuple[ContentImage, ...]:
    """Return no image: for sets that describe none."""
    del source_id
    return ()


@dataclass(frozen=True, slots=True)
class PromptContext:
    """What the reader of a set may use besides the recipe.

    Args:
        out: The dataset folder; journals lie in its `.work`.
        cache: Folder of downloads.
        images: Gives the images of a source of the same recipe, in a stable order.
        progress: Told how far the set is.
    """

    out: Path
    cache: Path
    images: Callable[[str], Iterable[ContentImage]] = field(default=no_images)
    progress: ProgressSink = silent
