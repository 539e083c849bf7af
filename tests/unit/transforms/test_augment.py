from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import forgery_det
from forgery_det.core.errors import ConfigError
from forgery_det.transforms.augment import AUGMENTATIONS, create_augment

SOURCE = Path(forgery_det.__file__).parent
OFFLINE = """
import socket, urllib.request, warnings
warnings.simplefilter("error")
def refuse(*args, **kwargs):
    raise AssertionError("network used")
socket.socket.connect = refuse
urllib.request.OpenerDirector.open = refuse
import os
os.environ.pop("NO_ALBUMENTATIONS_UPDATE", None)
"""


def photo(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth and noisy at once, so that blur and compression both change it."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 3, y * 4, x + y], axis=-1)
    return (smooth % 200 + np.random.default_rng(seed).integers(0, 50, (height, width, 3))).astype(np.uint8)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_generator_decides_all(name):
    augment, image = create_augment(name), photo()
    first = [augment(image, np.random.default_rng(k)) for k in range(8)]
    np.random.default_rng(5).random()
    again = [create_augment(name)(image, np.random.default_rng(k)) for k in reversed(range(8))][::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (48, 64)])
def test_any_size_stays_uint8_rgb_and_the_input_is_untouched(name, size):
    image = photo(*size)
    before = image.copy()
    for k in range(6):
        result = create_augment(name)(image, np.random.default_rng(k))
        assert result.dtype == np.uint8
        assert result.shape == image.shape
    np.testing.assert_array_equal(image, before)


def test_none_changes_nothing():
    np.testing.assert_array_equal(create_augment("none")(photo(), np.random.default_rng(0)), photo())


def test_flip_mirrors_about_half_of_the_images():
    results = [create_augment("flip")(photo(), np.random.default_rng(k)) for k in range(100)]
    flipped = [np.array_equal(result, photo()[:, ::-1]) for result in results]
    assert all(flip or np.array_equal(result, photo()) for flip, result in zip(flipped, results, strict=True))
    assert 35 <= sum(flipped) <= 65


@pytest.mark.parametrize(("name", "p"), [("jpeg_blur", 0.5), ("jpeg_blur_light", 0.1)])
def test_blur_and_compression_come_independently_as_often_as_in_the_paper(name, p):
    image, n = photo(), 1000
    results = [create_augment(name)(image, np.random.default_rng(k)) for k in range(n)]
    untouched = np.mean([np.array_equal(result, image) or np.array_equal(result, image[:, ::-1]) for result in results])
    # A tenth of the blurs have a sigma (below 0.3) that changes no 8-bit pixel; four standard errors of the mean.
    expected = (1 - 0.9 * p) * (1 - p)
    assert untouched == pytest.approx(expected, abs=4 * (expected * (1 - expected) / n) ** 0.5)


def test_blur_is_as_wide_as_in_the_paper():
    # The widest of many blurs takes the noise down as a Gaussian of sigma 3 does, and no further.
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    spreads = [create_augment("jpeg_blur")(noise, np.random.default_rng(k))[12:-12, 12:-12].std() for k in range(300)]
    widest = gaussian_filter(noise.astype(float), (3, 3, 0))[12:-12, 12:-12].std()
    assert min(spreads) == pytest.approx(widest, rel=0.25)


def test_unknown_name_is_explained():
    with pytest.raises(ConfigError, match="Unknown augmentation 'jpg_blur': did you mean 'jpeg_blur'"):
        create_augment("jpg_blur")


@pytest.mark.slow
def test_albumentations_neither_warns_nor_calls_home():
    code = OFFLINE + (
        "import numpy as np\n"
        "from forgery_det.transforms.augment import create_augment\n"
        "create_augment('jpeg_blur')(np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0))\n"
        "assert 'NO_ALBUMENTATIONS_UPDATE' not in os.environ\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_no_other_file_imports_albumentations_and_no_detector_imports_augment():
    for path in SOURCE.rglob("*.py"):
        modules = imported_modules(path)
        if path != SOURCE / "transforms" / "augment.py":
            assert not any(name.split(".")[0] == "albumentations" for name in modules), path
        if path.is_relative_to(SOURCE / "detectors"):
            assert "forgery_det.transforms.augment" not in modules, path
