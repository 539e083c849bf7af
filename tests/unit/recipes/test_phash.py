from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.fft
from PIL import Image, ImageFilter

from forgery_det.core.errors import ConfigError
from forgery_det.recipes import phash as module
from forgery_det.recipes.phash import hamming, near_duplicates, parse_hashes, phash


def photo(seed: int, size: int = 256) -> np.ndarray:
    """A photograph-like image: 1/f noise in colour with a few hard-edged shapes."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.normal(size=(3, size, size))) / frequency**1.2
    image = np.fft.ifft2(spectrum).real
    image = (image - image.min()) / np.ptp(image)
    y, x = np.mgrid[:size, :size]
    for _ in range(3):
        centre, radius = rng.uniform(0, size, 2), rng.uniform(size / 12, size / 5)
        image[:, np.hypot(y - centre[0], x - centre[1]) < radius] = rng.uniform(0, 1, (3, 1))
    return (image.transpose(1, 2, 0) * 255).astype(np.uint8)


def saved(image: np.ndarray, codec: str, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, codec, quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def reference(image: np.ndarray) -> str:
    """The definition in floating point, from scipy's DCT and numpy's median."""
    small = np.asarray(Image.fromarray(image).convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
    low = scipy.fft.dct(scipy.fft.dct(small, axis=0), axis=1)[:8, :8]
    return f"{int(''.join('1' if bit else '0' for bit in (low > np.median(low)).ravel()), 2):016x}"


@pytest.mark.parametrize("seed", range(20))
def test_phash_is_the_definition(seed: int) -> None:
    image = photo(seed, 96)
    assert hamming(phash(image), reference(image)) == 0


@pytest.mark.parametrize("seed", range(4))
def test_copies_stay_near(seed: int) -> None:
    image, own = photo(seed), phash(photo(seed))
    copies = {
        "half": resized(image, 128, 128),
        "stretched": resized(image, 200, 160),
        "jpeg 50": saved(image, "JPEG", 50),
        "webp 40": saved(image, "WEBP", 40),
        "brighter": np.clip(image.astype(int) + 12, 0, 255).astype(np.uint8),
        "blurred": np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2))),
        "half, then jpeg 60": saved(resized(image, 128, 128), "JPEG", 60),
    }
    assert {name: distance for name, copy in copies.items() if (distance := hamming(own, phash(copy))) > 4} == {}


def test_unrelated_images_are_far() -> None:
    hashes = [phash(photo(seed, 96)) for seed in range(40)]
    distances = [hamming(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 10
    assert 28 < np.mean(distances) < 34


def test_an_image_without_ties_has_32_ones_and_flat_ones_are_degenerate() -> None:
    assert int(phash(photo(0)), 16).bit_count() == 32
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3)).copy()
    for image in (np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 200, np.uint8), ramp):
        assert module.degenerate(parse_hashes([phash(image)])).all()


def brute_force(hashes: list[str], distance: int) -> set[tuple[int, int]]:
    values = [int(value, 16) for value in hashes]
    return {(i, j) for j in range(len(values)) for i in range(j) if (values[i] ^ values[j]).bit_count() <= distance}


def clustered_hashes(n: int, seed: int) -> list[str]:
    """Balanced random hashes, half of them a few bit flips away from an earlier one; all different."""
    rng = np.random.default_rng(seed)
    hashes: list[int] = []
    while len(hashes) < n:
        if len(hashes) < n // 2:
            bits = rng.permutation(np.repeat([0, 1], 32))
            value = int("".join(map(str, bits)), 2)
        else:
            value = hashes[rng.integers(len(hashes))]
            for bit in rng.choice(64, rng.integers(1, 8), replace=False):
                value ^= 1 << int(bit)
        if value not in hashes and value.bit_count() >= 24:
            hashes.append(value)
    return [f"{value:016x}" for value in hashes]


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 7, 10])
@pytest.mark.parametrize("bands", [1, 2, 3])
def test_near_duplicates_are_those_of_brute_force(distance: int, bands: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_bands_to_match", lambda *_: bands)
    hashes = clustered_hashes(400, seed=distance)
    found = near_duplicates(hashes, distance)
    assert {tuple(pair) for pair in found.tolist()} == brute_force(hashes, distance)
    assert len(found) == len(brute_force(hashes, distance))


def test_copies_of_one_hash_are_a_star_not_all_pairs() -> None:
    hashes = ["f0f0f0f0f0f0f0f0"] * 1000 + ["f0f0f0f0f0f0f0f1"] * 1000
    found = near_duplicates(hashes, 4)
    assert len(found) == 999 + 999 + 1
    assert set(found[:, 0].tolist()) == {0, 1000}


def test_degenerate_hashes_are_in_no_pair() -> None:
    assert near_duplicates(["8000000000000000"] * 50 + ["0000000000000000"] * 50, 16).shape == (0, 2)


def test_too_many_pairs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAIRS", 100)
    hashes = [f"{0xF0F0F0F0F0F0F0F0 ^ (1 << bit):016x}" for bit in range(64)]
    with pytest.raises(ConfigError, match=r"Expected at most 100 near-duplicate pairs, got more among 64 different"):
        near_duplicates(hashes, 4)


def test_wrong_input_is_told() -> None:
    with pytest.raises(ConfigError, match=r"Expected `phash` to be 16 hexadecimal digits, got 'xyz' \(index 1\)"):
        near_duplicates(["0" * 16, "xyz"], 4)
    with pytest.raises(ConfigError, match=r"Expected a perceptual distance in \[0, 16\], got 17"):
        near_duplicates([], 17)
    assert near_duplicates([], 4).shape == (0, 2)
