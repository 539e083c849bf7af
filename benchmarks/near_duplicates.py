"""Near-duplicate search over perceptual hashes, against comparing all pairs.

    python benchmarks/near_duplicates.py [--n 1000000] [--n-brute 20000] [--distance 4]

Hashes are seeded and look like those of photographs: low frequencies are large, so some bits are far from fair, and 1 %
of the images are near copies of others. Brute force is vectorised numpy on a smaller n. It prints both times, the ratio
of the speeds in pairs a second, and whether both found the same pairs on the smaller n.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from forgery_det.audits.near_duplicates import FLIP_REACH, FLIP_REACH_MANY, MANY, MIRROR_MASK, mirror_candidates
from forgery_det.recipes.phash import near_duplicates, parse_hashes


def photo_hashes(n: int, seed: int) -> list[str]:
    """Hashes of Gaussian 1/f spectra with a bias by frequency; 1 % bear a few flipped bits of an earlier hash."""
    rng = np.random.default_rng(seed)
    frequency = np.add.outer(np.arange(8), np.arange(8)).ravel() + 1.0
    bias = rng.normal(size=64) * 0.4
    hashes = np.empty(n, np.uint64)
    for start in range(0, n, 50_000):
        coefficient = (rng.normal(size=(min(50_000, n - start), 64)) + bias) / frequency**0.5
        bits = coefficient > np.median(coefficient, axis=1, keepdims=True)
        hashes[start : start + len(bits)] = np.packbits(bits, axis=1).view(">u8").ravel()
    for copy in range(n - n // 100, n):
        flips = sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 4), replace=False))
        hashes[copy] = hashes[rng.integers(n - n // 100)] ^ np.uint64(flips)
    return [f"{value:016x}" for value in hashes.tolist()]


def brute_force(hashes: list[str], distance: int) -> int:
    """Count all pairs within the distance, row by row."""
    values = parse_hashes(hashes)
    return sum(int((np.bitwise_count(values[i + 1 :] ^ values[i]) <= distance).sum()) for i in range(len(values)))


def timed(function, *arguments):
    """Return the result and the seconds it took."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def brute_force_mirrored(hashes: list[str], reach: int) -> int:
    """Count all ordered pairs of different images whose hash and guessed mirrored hash lie within the reach."""
    values = parse_hashes(hashes)
    guesses = values ^ MIRROR_MASK
    itself = int((np.bitwise_count(guesses ^ values) <= reach).sum())
    return sum(int((np.bitwise_count(values ^ guess) <= reach).sum()) for guess in guesses) - itself


def plain_copies(options: argparse.Namespace) -> None:
    """Copies that were resized or saved again: `duplicates_across_splits`."""
    small = sorted(set(photo_hashes(options.n_brute, seed=1)))
    expected, brute_s = timed(brute_force, small, options.distance)
    found_small, small_s = timed(near_duplicates, small, options.distance)
    large = photo_hashes(options.n, seed=0)
    found, search_s = timed(near_duplicates, large, options.distance)
    report("copies", len(small) ** 2 / 2, brute_s, small_s, expected, len(found_small))
    summary(
        "copies", options.n, search_s, len(found), options.distance, len(small) ** 2 / 2 / brute_s, options.n**2 / 2
    )


def mirrored_copies(options: argparse.Namespace) -> None:
    """Candidates of mirrored copies: the first step of `near_duplicates`, before any image is decoded."""
    small = sorted(set(photo_hashes(options.n_brute, seed=1)))
    reach = FLIP_REACH if len(small) <= MANY else FLIP_REACH_MANY
    expected, brute_s = timed(brute_force_mirrored, small, reach)
    found_small, small_s = timed(mirror_candidates, parse_hashes(small))
    large = parse_hashes(photo_hashes(options.n, seed=0))
    found, search_s = timed(mirror_candidates, large)
    reach = FLIP_REACH if options.n <= MANY else FLIP_REACH_MANY
    report("mirrored", len(small) ** 2, brute_s, small_s, expected, len(found_small))
    summary("mirrored", options.n, search_s, len(found), reach, len(small) ** 2 / brute_s, options.n**2)


def report(name: str, pairs: float, brute_s: float, search_s: float, expected: int, found: int) -> None:
    """Print both methods on the smaller n; they must find the same pairs."""
    n = round((2 * pairs if name == "copies" else pairs) ** 0.5)
    print(f"{name:<9} brute force n = {n:>9}: {brute_s:8.2f} s, {expected} pairs")
    print(f"{name:<9} search      n = {n:>9}: {search_s:8.2f} s, {found} pairs, as many: {found == expected}")


def summary(name: str, n: int, search_s: float, found: int, distance: int, brute_rate: float, pairs: float) -> None:
    """Print the search at full size and the ratio of pairs a second."""
    print(f"{name:<9} search      n = {n:>9}: {search_s:8.2f} s, {found} pairs, distance {distance}")
    print(f"{name:<9} ratio: {pairs / search_s / brute_rate:.0f} times as many pairs a second as brute force")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--n-brute", type=int, default=20_000)
    parser.add_argument("--distance", type=int, default=4)
    options = parser.parse_args()
    plain_copies(options)
    mirrored_copies(options)


if __name__ == "__main__":
    main()
