"""Was a test prompt already in training? Same idea, same text, or nearly the same text.

A detector that saw ten pictures of one prompt has learnt what that prompt looks like; a test picture of the same prompt
then measures recall of subject matter too. Benchmarks that render one prompt list with many generators have such pairs
by design, so this is a warning: results on those images must be read as "known subject".

Text is normalised (NFKC, case folded, punctuation and repeated blanks gone). Nearly the same are prompts whose sets of
words x, y overlap enough:

    J(x, y) = |x & y| / |x | y| >= prompt_similarity         (Jaccard)

Found exactly, not by MinHash: two sets with J >= t share one of the ceil-rarest words of both, so an index over these
few words gives all candidates (prefix filtering: Bayardo, Ma and Srikant, "Scaling up all pairs similarity search",
2007). Prompts of fewer than `MIN_WORDS` different words count only when equal: "a red car" and "a blue car" share half.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import polars as pl

from forgery_det.audits.context import AuditContext
from forgery_det.audits.leaks import SHOWN_ROWS, counted
from forgery_det.audits.report import AuditFinding

MIN_WORDS = 4
EARLIER = {"val": ("train",), "test": ("train", "val")}
"""Splits whose prompts a split must not repeat."""
SHOWN_CHARACTERS = 120
_WORD = re.compile(r"\w+")


class Match(NamedTuple):
    """A prompt and the most similar one in an earlier split.

    Args:
        text: Normalised prompt.
        other: Normalised prompt of the earlier split.
        similarity: Jaccard of their words; 1 if they are equal.
    """

    text: str
    other: str
    similarity: float


def prompt_overlap(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return the images whose `prompt_id`, or whose text, is already in an earlier split (both warn)."""
    frame = context.manifest.frame.sort("image_id")
    with_id = frame.filter(pl.col("prompt_id").is_not_null())
    with_text = frame.filter(pl.col("prompt").is_not_null()).with_columns(
        pl.col("prompt").map_elements(normalised, return_dtype=pl.String).alias("text")
    )
    with_text = with_text.filter(pl.col("text") != "")
    return (_same_id(with_id), _same_text(with_text, context.options.prompt_similarity))


def _same_id(frame: pl.DataFrame) -> AuditFinding:
    if not frame.height:
        return _nothing("match=prompt_id", "prompt_id")
    repeated = []
    for split, earlier in EARLIER.items():
        known = frame.filter(pl.col("split").is_in(earlier))["prompt_id"].unique()
        repeated.append(frame.filter(pl.col("split") == split, pl.col("prompt_id").is_in(known.implode())))
    images = pl.concat(repeated)
    n_held = frame.filter(pl.col("split") != "train").height
    rows = images.group_by("prompt_id", "split").len("images").sort("prompt_id", "split").head(SHOWN_ROWS).to_dicts()
    told = f"{images['prompt_id'].n_unique()} prompt_ids" if images.height else ""
    return _finding("match=prompt_id", images.height, n_held, told, rows)


def _same_text(frame: pl.DataFrame, limit: float) -> AuditFinding:
    if not frame.height:
        return _nothing("match=text", "prompt")
    rows: list[dict[str, Any]] = []
    found = 0
    for split, earlier in EARLIER.items():
        known = frame.filter(pl.col("split").is_in(earlier))["text"].unique().sort().to_list()
        here = frame.filter(pl.col("split") == split)
        images: Mapping[str, int] = Counter(here["text"].to_list())
        for match in similar_prompts(sorted(images), known, limit):
            found += images[match.text]
            rows.append(
                {
                    "split": split,
                    "images": images[match.text],
                    "similarity": round(match.similarity, 3),
                    "prompt": match.text[:SHOWN_CHARACTERS],
                    "earlier_prompt": match.other[:SHOWN_CHARACTERS],
                }
            )
    rows.sort(key=lambda row: (-row["similarity"], -row["images"], row["prompt"]))
    n_held = frame.filter(pl.col("split") != "train").height
    told = f"{len(rows)} prompts, word overlap of at least {limit:g}" if rows else ""
    return _finding("match=text", found, n_held, told, rows[:SHOWN_ROWS])


def _nothing(where: str, column: str) -> AuditFinding:
    detail = f"No image has a {column}, so nothing can be said about shared prompts."
    return AuditFinding("prompt_overlap", where, "not_estimable", None, None, None, 0, 0, detail)


def _finding(where: str, found: int, n: int, told: str, rows: Sequence[Mapping[str, Any]]) -> AuditFinding:
    if found:
        detail = (
            f"{found} of {n} val and test images with a prompt repeat one of an earlier split ({told}). Their score "
            "may be known subject matter: give images of one prompt one source_id, so that they stay in one split."
        )
    else:
        detail = f"None of {n} val and test images with a prompt repeats one of an earlier split."
    return counted("prompt_overlap", where, "warn", found, n, detail, rows)


def normalised(prompt: str) -> str:
    """Return a prompt as folded words with one blank between them.

    Example:
        >>> normalised("A  Red-haired fox, running!")
        'a red haired fox running'
    """
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", prompt).casefold()))


def similar_prompts(texts: Iterable[str], known: Sequence[str], limit: float) -> list[Match]:
    """Return for each text that has one the most similar known text of Jaccard at least `limit`; equal ones first.

    Args:
        texts: Normalised prompts to look up, each once.
        known: Normalised prompts to find, each once.
        limit: In (0, 1].

    Example:
        >>> similar_prompts(["a red fox runs in snow"], ["a red fox runs in deep snow", "a fox"], 0.8)[0].other
        'a red fox runs in deep snow'
    """
    queries = {text: frozenset(text.split()) for text in texts}
    targets = {text: frozenset(text.split()) for text in known}
    frequency = Counter(word for words in (*queries.values(), *targets.values()) for word in words)
    index: dict[str, list[str]] = defaultdict(list)
    for text, words in targets.items():
        if len(words) >= MIN_WORDS:
            for word in _rarest(words, frequency, limit):
                index[word].append(text)
    found = []
    for text, words in queries.items():
        if text in targets:
            found.append(Match(text, text, 1.0))
        elif len(words) >= MIN_WORDS:
            near = {other for word in _rarest(words, frequency, limit) for other in index.get(word, ())}
            best = max(((jaccard(words, targets[other]), other) for other in near), default=(0.0, ""))
            if best[0] >= limit:
                found.append(Match(text, best[1], best[0]))
    return found


def _rarest(words: frozenset[str], frequency: Mapping[str, int], limit: float) -> list[str]:
    """Return the |x| - ceil(t |x|) + 1 rarest words; sets with Jaccard of at least t have one of these in common."""
    # Just below the product, so that 0.8 * 5 = 4.000000001 does not lose a word.
    n_prefix = len(words) - ceil(limit * len(words) - 1e-9) + 1
    return sorted(words, key=lambda word: (frequency[word], word))[:n_prefix]


def jaccard(x: frozenset[str], y: frozenset[str]) -> float:
    """Return the share of words in common, in [0, 1].

    Example:
        >>> jaccard(frozenset("abc"), frozenset("bcd"))
        0.5
    """
    return len(x & y) / len(x | y)
