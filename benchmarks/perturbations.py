"""Decode once and fan out, against decoding again for every perturbation. Prints ratios; asserts nothing.

    OMP_NUM_THREADS=1 python benchmarks/perturbations.py [--images 12] [--side 2048] [--codec jpeg] [--view 224]

Images are seeded stand-ins for photographs, saved by our own encoder. Both ways make the same copies (this is checked)
and end with the same preprocessing, a resize of the short side and a crop; no detector runs. Times are processor
seconds of one thread. Three sets of perturbations: the quick configuration, cheap ones only, and codecs only. The ratio
falls with the cost of the perturbations themselves: where a copy is encoded and decoded again, that is most of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from scipy.ndimage import gaussian_filter

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.image_io import decode_file, encode_image
from forgery_det.core.manifest import Manifest
from forgery_det.evaluation.fan_out import CopyDataset, iterate_copies
from forgery_det.evaluation.perturbations import Condition, check_perturbations, conditions_of
from forgery_det.transforms.perturb import perturb
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, ResizeShort

QUICK = Path(__file__).parents[1] / "configs/evaluate/robustness_quick.yaml"
SETS = {
    "robustness_quick.yaml": yaml.safe_load(QUICK.read_text(encoding="utf-8"))["perturbations"],
    "flips, crops, gamma, downscale": {
        "hflip": "all", "rot90": "all", "crop_centre": "all", "gamma_darker": "all", "downscale_bilinear": "all",
    },
    "jpeg and webp": {"jpeg": "all", "webp": [3, 6]},
}  # fmt: skip


def make_images(root: Path, count: int, side: int, codec: str) -> Manifest:
    """Write seeded images, 3:2, and a manifest of one test split."""
    rows = []
    for index in range(count):
        rng = np.random.default_rng(index)
        height = side * 2 // 3
        small = gaussian_filter(rng.normal(size=(height // 8, side // 8, 3)), (3, 3, 0))
        image = 128 + 700 * small.repeat(8, axis=0).repeat(8, axis=1)
        image += rng.normal(0, 4, image.shape)
        data = encode_image(np.clip(image, 0, 255).astype(np.uint8), codec, None if codec == "png" else 92)
        image_id = sha256_bytes(data)
        (root / f"{image_id}.{codec}").write_bytes(data)
        rows.append({
            "image_id": image_id, "path": f"{image_id}.{codec}", "label": 0, "generator": "camera",
            "paradigm": "camera", "decoder": "unknown", "source": "synthetic", "source_id": str(index),
            "width_px": image.shape[1], "height_px": image.shape[0], "codec": codec, "licence": "CC0-1.0",
            "split": "test", "recipe": "benchmark",
        })  # fmt: skip
    return Manifest.from_rows(rows, root)


def fan_out(manifest: Manifest, preprocess: Preprocess, conditions: tuple[Condition, ...]) -> list[str]:
    """Return a hash of each view; one decoding an image."""
    dataset = CopyDataset(manifest, preprocess, conditions, "test")
    return sorted(sha256_bytes(copy.view.tobytes()) for copy in iterate_copies(dataset) if copy.view is not None)


def again_each_time(manifest: Manifest, preprocess: Preprocess, conditions: tuple[Condition, ...]) -> list[str]:
    """Return a hash of each view; one decoding a condition and image, as a loop over perturbed data sets does."""
    rows = manifest.frame.select(pl.col("image_id"), pl.col("path")).rows()
    views = [preprocess(decode_file(manifest.image_file(path)).image_HWC) for _, path in rows]
    for condition in conditions:
        for image_id, path in rows:
            image = decode_file(manifest.image_file(path)).image_HWC
            views.append(preprocess(perturb(image, condition.perturbation, condition.severity, image_id)))
    return sorted(sha256_bytes(view.tobytes()) for view in views)


def timed(call: Callable[[], list[str]]) -> tuple[list[str], float]:
    start = time.process_time()
    return call(), time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--codec", default="jpeg", choices=["jpeg", "png", "webp", "avif"])
    parser.add_argument("--view", type=int, default=224)
    given = parser.parse_args()
    preprocess = Preprocess((ResizeShort(given.view), CenterCrop(given.view, given.view)))
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_images(Path(folder), given.images, given.side, given.codec)
        fan_out(manifest.subset(pl.col("source_id") == "0"), preprocess, ())
        height = manifest.frame["height_px"][0]
        print(f"{given.images} {given.codec} images of {given.side} x {height} px; processor seconds of one thread")
        print(
            f"{'perturbations':32s} {'copies':>7s} {'once':>8s} {'each time':>10s} {'ratio':>7s} {'copies/s':>9s} same"
        )
        for name, declared in SETS.items():
            conditions = conditions_of(check_perturbations(declared))
            ours, once_s = timed(lambda c=conditions: fan_out(manifest, preprocess, c))
            naive, each_s = timed(lambda c=conditions: again_each_time(manifest, preprocess, c))
            rate = len(ours) / once_s
            print(
                f"{name:32s} {len(ours):7d} {once_s:7.1f}s {each_s:9.1f}s {each_s / once_s:6.2f}x {rate:9.1f} "
                f"{'yes' if ours == naive else 'NO'}"
            )


if __name__ == "__main__":
    main()
