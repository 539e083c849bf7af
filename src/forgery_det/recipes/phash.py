"""Perceptual hash: 64 bits that stay almost the same when an image is resized or saved again.

Definition (the one known from the ImageHash package; the idea is from Zauner, "Implementation and Benchmarking of
Perceptual Image Hash Functions", 2010): luma (BT.601) resized to 32 x 32 with Lanczos; two-dimensional DCT-II; the 8 x
8 lowest frequencies, the constant term included; a bit is 1 where the coefficient is above the median of the 64. Bits
are written row by row, the highest bit first, as 16 hexadecimal digits.

The DCT runs on integers (cosines rounded to 1 / 2^20), so the hash has the same bits on every machine.

A median splits 64 different numbers into 32 and 32. Fewer ones mean that coefficients tie at the median: a flat image,
a gradient, a ruled pattern. Below `MIN_ONES` ones the hash says too little to call two images alike (all flat images
share one hash), so such degenerate hashes are left out of every comparison. Equal bytes are still found by their
sha256.
"""

from __future__ import annotations

import re
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
from PIL import Image

from forgery_det.core.errors import ConfigError
from forgery_det.transforms.preprocess import ImageArray, resize

HASH_BITS = 64
MIN_ONES = 24
"""Hashes with fewer ones are degenerate; an image whose coefficients all differ has exactly 32."""
MAX_DISTANCE = 16
"""Largest distance that may be asked for; unrelated images differ in about 32 bits."""
MAX_PAIRS = 20_000_000
"""More pairs than this mean that the distance is too wide for the images, not that so many are copies."""

_SIZE_PX, _LOW = 32, 8
_FREQUENCY_K = np.arange(_LOW)[:, None]
_COSINE_KN: npt.NDArray[np.int64] = np.rint(
    np.cos(np.pi * (2 * np.arange(_SIZE_PX) + 1) * _FREQUENCY_K / (2 * _SIZE_PX)) * 2**20
).astype(np.int64)
_HASH = re.compile(r"[0-9a-f]{16}")

HashArray = npt.NDArray[np.uint64]
PairArray = npt.NDArray[np.int64]


def phash(image_HWC: ImageArray) -> str:
    """Return the 64-bit hash of a decoded image as 16 hexadecimal digits.

    Args:
        image_HWC: uint8 RGB.

    Example:
        >>> ramp = np.add.outer(np.arange(64) ** 2 // 32, np.arange(64)).astype(np.uint8)
        >>> photo = np.stack([ramp] * 3, axis=2)
        >>> hamming(phash(photo), phash(photo[::2, ::2])) <= 4
        True
    """
    luma_HW = np.asarray(Image.fromarray(image_HWC).convert("L"))
    small_NN = resize(luma_HW, _SIZE_PX, _SIZE_PX, "lanczos").astype(np.int64)
    coefficient = (_COSINE_KN @ small_NN @ _COSINE_KN.T).ravel()
    # Twice the median is a whole number, so the comparison stays exact.
    middle = np.sort(coefficient)[HASH_BITS // 2 - 1 : HASH_BITS // 2 + 1].sum()
    return np.packbits(2 * coefficient > middle).tobytes().hex()


def hamming(a: str, b: str) -> int:
    """Return the number of bits in which two hashes differ, in [0, 64].

    Raises:
        ConfigError: One of them is not 16 hexadecimal digits.

    Example:
        >>> hamming("00000000000000ff", "0000000000000001")
        7
    """
    first, second = parse_hashes([a, b])
    return int(np.bitwise_count(first ^ second))


def parse_hashes(phashes: list[str] | tuple[str, ...]) -> HashArray:
    """Return the hashes as uint64 [N].

    Raises:
        ConfigError: A hash is not 16 hexadecimal digits.
    """
    for index, value in enumerate(phashes):
        if _HASH.fullmatch(value) is None:
            raise ConfigError(f"Expected `phash` to be 16 hexadecimal digits, got {value!r} (index {index}).")
    return np.array([int(value, 16) for value in phashes], dtype=np.uint64)


def degenerate(hash_N: HashArray) -> npt.NDArray[np.bool_]:
    """Return where a hash says too little to compare: fewer than `MIN_ONES` ones.

    Example:
        >>> degenerate(parse_hashes(["8000000000000000", "f0f0f0f0f0f0f0f0"])).tolist()
        [True, False]
    """
    return np.asarray(np.bitwise_count(hash_N) < MIN_ONES)


def near_duplicates(phashes: list[str] | tuple[str, ...], max_distance: int) -> PairArray:
    """Return pairs `(i, j)`, i < j, of images whose hashes differ in at most `max_distance` bits, [P, 2], sorted.

    Equal hashes are one node: the first image that bears a hash stands for it, each other bearer is paired with that
    first one only. So a thousand copies are 999 pairs, not half a million, and everything that is connected stays
    connected. Degenerate hashes are in no pair.

    Pigeonhole: cut the 64 bits into `max_distance + k` bands; two hashes within the distance agree in at least `k`
        bands.
    For each choice of `k` bands, sorting by those bits puts all true pairs side by side (multi-index hashing, Norouzi,
    Punjani and Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing", arXiv 1307.2982).

    Raises: ConfigError: A hash is malformed, the distance is outside [0, `MAX_DISTANCE`], or there are over `MAX_PAIRS`
        pairs.

    Example:
        >>> near_duplicates(["f0f0f0f0f0f0f0f0", "0f0f0f0f0f0f0f0f", "f0f0f0f0f0f0f0f1"], 2).tolist()
        [[0, 2]]
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise ConfigError(f"Expected a perceptual distance in [0, {MAX_DISTANCE}], got {max_distance}.")
    hash_N = parse_hashes(phashes)
    usable = np.flatnonzero(~degenerate(hash_N))
    hash_U, first_U, node_N = np.unique(hash_N[usable], return_index=True, return_inverse=True)
    first_U, image_N = usable[first_U], usable
    copies = np.stack([first_U[node_N], image_N], axis=1)[first_U[node_N] != image_N]
    near = first_U[near_pairs(hash_U, max_distance)]
    pairs = np.sort(np.concatenate([copies, near]).astype(np.int64), axis=1)
    return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])


def near_pairs(hash_U: HashArray, max_distance: int) -> PairArray:
    """Return all pairs of *different* hashes within the distance as positions in `hash_U`, [P, 2], i < j, sorted.

    Raises:
        ConfigError: There are over `MAX_PAIRS` pairs.
    """
    size = len(hash_U)
    if size < 2 or max_distance == 0:
        return np.zeros((0, 2), np.int64)
    found: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    for mask in _band_masks(max_distance, _bands_to_match(size, max_distance)):
        found = np.union1d(found, _pairs_of_mask(hash_U, mask, max_distance))
        _check_amount(found.size, size, max_distance)
    return np.stack(np.divmod(found, size), axis=1)


def _pairs_of_mask(hash_U: HashArray, mask: np.uint64, max_distance: int) -> npt.NDArray[np.int64]:
    """Return `i * U + j` of the pairs within the distance that agree on the bits of the mask."""
    size = len(hash_U)
    key_U = hash_U & mask
    order = np.argsort(key_U, kind="stable")
    key_U, sorted_U = key_U[order], hash_U[order]
    left = np.arange(size)
    found, total, step = [], 0, 0
    # Compare each hash with the next, the next but one, ...; only starts whose bucket reaches that far stay.
    while left.size:
        step += 1
        left = left[left + step < size]
        left = left[key_U[left] == key_U[left + step]]
        close = left[np.bitwise_count(sorted_U[left] ^ sorted_U[left + step]) <= max_distance]
        total += close.size
        _check_amount(total, size, max_distance)
        a, b = order[close], order[close + step]
        found.append(np.minimum(a, b) * size + np.maximum(a, b))
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _check_amount(pairs: int, size: int, max_distance: int) -> None:
    if pairs > MAX_PAIRS:
        raise ConfigError(
            f"Expected at most {MAX_PAIRS} near-duplicate pairs, got more among {size} different hashes at distance "
            f"{max_distance}: the images look alike by design. Lower the distance (`phash_distance` of the recipe)."
        )


def _bands_to_match(size: int, max_distance: int) -> int:
    """Return the k that makes sorting (one pass a choice of bands) and comparing (bucket sizes) cheapest together."""

    def cost(k: int) -> float:
        passes, key_bits = comb(max_distance + k, k), HASH_BITS * k / (max_distance + k)
        # A sorted element costs about as much as thirty comparisons.
        return float(passes * (30.0 * size + size * size / 2.0 ** (key_bits + 1)))

    return min(range(1, 5), key=cost)


def _band_masks(max_distance: int, k: int) -> list[np.uint64]:
    """Return the bit masks of all choices of k out of `max_distance + k` bands."""
    n_bands = max_distance + k
    # Bands take every n-th bit: neighbouring frequencies are correlated, and mixing them evens out the buckets.
    bands = [sum(1 << bit for bit in range(band, HASH_BITS, n_bands)) for band in range(n_bands)]
    return [np.uint64(sum(chosen)) for chosen in combinations(bands, k)]
