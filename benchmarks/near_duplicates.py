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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--n-brute", type=int, default=20_000)
    parser.add_argument("--distance", type=int, default=4)
    options = parser.parse_args()
    small = sorted(set(photo_hashes(options.n_brute, seed=1)))
    expected, brute_s = timed(brute_force, small, options.distance)
    found_small, small_s = timed(near_duplicates, small, options.distance)
    large = photo_hashes(options.n, seed=0)
    found, search_s = timed(near_duplicates, large, options.distance)
    brute_rate, search_rate = len(small) ** 2 / 2 / brute_s, options.n**2 / 2 / search_s
    print(f"brute force  n = {len(small):>9}: {brute_s:8.2f} s, {expected} pairs")
    same = len(found_small) == expected
    print(
        f"search       n = {len(small):>9}: {small_s:8.2f} s, {len(found_small)} pairs, as many as brute force: {same}"
    )
    print(f"search       n = {options.n:>9}: {search_s:8.2f} s, {len(found)} pairs, distance {options.distance}")
    print(f"ratio at n = {options.n}: {search_rate / brute_rate:.0f} times as many pairs a second as brute force")


if __name__ == "__main__":
    main()
