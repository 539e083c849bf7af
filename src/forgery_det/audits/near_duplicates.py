"""Is the same picture there mirrored, or as a piece of itself? What `duplicates_across_splits` cannot see.

That audit compares perceptual hashes and so finds copies that were resized or saved again. This one looks for two more:

- Mirrored (all images). Mirroring flips the sign of the DCT terms with an odd horizontal frequency, hence nearly all of
  the 32 bits in the odd columns of the hash: `mirrored = hash XOR MIRROR_MASK`, up to a few bits (median 2, 95 % at
  most 6, measured). Candidates within a wider reach of that guess are decoded, mirrored and hashed for certain.
- Cropped (a sample, `crop_images`). See `views`: 18 pieces of each image are hashed, and what lies near a piece is
  proven by alignment.

Pairs that the plain hash already shows are left to `duplicates_across_splits`, so each defect is told once. Search is
multi-index hashing (`recipes.phash`): a million hashes take minutes at most (`benchmarks/near_duplicates.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from forgery_det.audits.context import AuditContext
from forgery_det.audits.leaks import families_of, family_findings, with_hashes
from forgery_det.audits.report import AuditFinding
from forgery_det.audits.views import MIN_CORRELATION, N_VIEWS, VIEWS, best_correlation, small_gray, view_hashes
from forgery_det.recipes.phash import HASH_BITS, HashArray, PairArray, degenerate, near_pairs, parse_hashes, phash
from forgery_det.transforms.preprocess import ImageArray

MIRROR_MASK = np.uint64(sum(1 << bit for bit in range(0, HASH_BITS, 2)))
"""Bits of the odd columns: they are written row by row, the highest bit first, so column 7 is bit 0."""
FLIP_REACH = 10
"""Bits in which a mirrored hash may differ from the guess."""
FLIP_REACH_MANY, MANY = 6, 100_000
"""The reach beyond so many different hashes, where a wider one would take many minutes."""
CROP_REACH = 10
"""Bits between a crop and the nearest piece."""

_REMEDY = "The dedup of a recipe does not see mirrored or cropped copies: give them one source_id, or leave them out."


class Alike(NamedTuple):
    """Pairs of rows that show the same picture, and how."""

    pairs: PairArray
    how: str


def near_duplicates(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return families of mirrored and cropped copies across splits (fail), classes (fail), within a split (warn)."""
    frame = with_hashes(context)
    hashed = frame.filter(pl.col("phash").is_not_null())
    hash_N = parse_hashes(hashed["phash"].to_list())
    flipped = Alike(_flips(context, hashed, hash_N), "mirrored")
    cropped = Alike(_crops(context, hashed, hash_N), "cropped")
    families = families_of(hashed, np.concatenate([flipped.pairs, cropped.pairs]))
    families = families.with_columns(_how(families["image_id"], hashed, (flipped, cropped)))
    return family_findings("near_duplicates", families, hashed.height, _REMEDY, _note(context, frame, hash_N))


def _how(image_ids: pl.Series, hashed: pl.DataFrame, found: Iterable[Alike]) -> pl.Series:
    """Return for each image of a family in which ways it is alike another."""
    ways: dict[str, set[str]] = {}
    for pairs, how in found:
        for image_id in hashed["image_id"].gather(np.unique(pairs)):
            ways.setdefault(image_id, set()).add(how)
    return pl.Series("alike", [" and ".join(sorted(ways[one])) for one in image_ids], dtype=pl.String)


def _note(context: AuditContext, frame: pl.DataFrame, hash_N: HashArray) -> str:
    unseen = frame.height - len(hash_N)
    note = f" {unseen} images could not be decoded and were left out." if unseen else ""
    limit = context.options.crop_images
    if limit is not None and limit < frame.height:
        note += f" Crops were looked for among {limit} of {frame.height} images."
    return note


def _flips(context: AuditContext, hashed: pl.DataFrame, hash_N: HashArray) -> PairArray:
    """Return pairs of images that mirror each other, proven on the pixels."""
    pairs = _unordered(mirror_candidates(hash_N))
    pairs = _not_plain(pairs, hash_N, context.options.phash_distance)
    wanted = np.unique(pairs[:, 0])
    hashes = context.map_images(hashed["path"].gather(wanted), lambda image_HWC: phash(image_HWC[:, ::-1]))
    mirrored = dict(zip(wanted.tolist(), hashes, strict=True))
    proven = [
        (a, b)
        for a, b in pairs.tolist()
        if (own := mirrored[a]) is not None
        and np.bitwise_count(parse_hashes([own])[0] ^ hash_N[b]) <= context.options.phash_distance
    ]
    return _as_pairs(proven)


def mirror_candidates(hash_N: HashArray) -> PairArray:
    """Return pairs `(i, j)` where image j has about the hash that image i would have when mirrored, [P, 2].

    Example:
        >>> one = parse_hashes(["8aa2575bf12e6d04", "8aa2575bf12e6d04"])
        >>> mirror_candidates(one ^ np.array([0, MIRROR_MASK], np.uint64)).tolist()
        [[0, 1], [1, 0]]
    """
    reach = FLIP_REACH if len(hash_N) <= MANY else FLIP_REACH_MANY
    return matches(hash_N ^ MIRROR_MASK, hash_N, ~degenerate(hash_N), reach)


def _crops(context: AuditContext, hashed: pl.DataFrame, hash_N: HashArray) -> PairArray:
    """Return pairs of which one is a piece of the other, proven by alignment."""
    row_of = {image_id: row for row, image_id in enumerate(hashed["image_id"])}
    sample = context.sample(context.options.crop_images)["image_id"]
    rows = np.array([row_of[one] for one in sample if one in row_of], np.int64)
    found = context.map_images(hashed["path"].gather(rows), view_hashes)
    rows = rows[[one is not None for one in found]]
    hash_KV = np.array([one for one in found if one is not None], np.uint64).reshape(len(rows), N_VIEWS)
    usable_K = ~degenerate(hash_N[rows])
    starts: dict[tuple[int, int], int] = {}
    for number in range(N_VIEWS):
        near = matches(hash_KV[:, number], hash_N[rows], usable_K & ~degenerate(hash_KV[:, number]), CROP_REACH)
        for whole, piece in _not_plain(rows[near], hash_N, context.options.phash_distance).tolist():
            starts.setdefault((whole, piece), number)
    return _aligned(context, hashed, starts)


def _aligned(context: AuditContext, hashed: pl.DataFrame, starts: dict[tuple[int, int], int]) -> PairArray:
    """Return the pairs that hold after alignment; `starts` gives the view to begin with."""
    wanted = sorted({row for pair in starts for row in pair})
    grays = dict(zip(wanted, context.map_images(hashed["path"].gather(wanted), small_gray), strict=True))

    def holds(whole: ImageArray | None, piece: ImageArray | None, start: int) -> bool:
        if whole is None or piece is None:
            return False
        return best_correlation(whole, piece, VIEWS[start]) >= MIN_CORRELATION

    proven = [pair for pair, start in starts.items() if holds(grays[pair[0]], grays[pair[1]], start)]
    return _unordered(_as_pairs(proven))


def matches(probe_N: HashArray, plain_N: HashArray, usable_N: npt.NDArray[np.bool_], max_distance: int) -> PairArray:
    """Return pairs `(i, j)`, i != j, whose hashes `probe_N[i]` and `plain_N[j]` lie within the distance, [P, 2].

    Of images that share a hash the first stands for all; the others are copies of it, which the plain search joins.
    """
    usable = np.flatnonzero(usable_N)
    size = len(usable)
    hash_U, node = np.unique(np.concatenate([probe_N[usable], plain_N[usable]]), return_inverse=True)
    # Written backwards, so that the first image with a hash is the one that stays.
    bearer_probe, bearer_plain = np.full(len(hash_U), -1), np.full(len(hash_U), -1)
    bearer_probe[node[:size][::-1]] = usable[::-1]
    bearer_plain[node[size:][::-1]] = usable[::-1]
    near = near_pairs(hash_U, max_distance)
    same = np.arange(len(hash_U))
    probe = np.concatenate([bearer_probe[near[:, 0]], bearer_probe[near[:, 1]], bearer_probe[same]])
    plain = np.concatenate([bearer_plain[near[:, 1]], bearer_plain[near[:, 0]], bearer_plain[same]])
    keep = (probe >= 0) & (plain >= 0) & (probe != plain)
    pairs = np.stack([probe[keep], plain[keep]], axis=1)
    return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))], np.int64)


def _not_plain(pairs: PairArray, hash_N: HashArray, distance: int) -> PairArray:
    """Leave out the pairs that the plain hashes already show."""
    apart = np.bitwise_count(hash_N[pairs[:, 0]] ^ hash_N[pairs[:, 1]]) > distance
    return np.asarray(pairs[apart])


def _unordered(pairs: PairArray) -> PairArray:
    return np.unique(np.sort(pairs, axis=1), axis=0) if len(pairs) else pairs


def _as_pairs(pairs: Iterable[tuple[int, int]]) -> PairArray:
    return np.array(list(pairs), np.int64).reshape(-1, 2)
