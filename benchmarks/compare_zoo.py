"""Train the detectors that two cores can train on `wild_mini`, evaluate each on its test split, and compare them.

    python benchmarks/compare_zoo.py --out runs/zoo [--dataset datasets/wild_mini]

Each row of `ZOO` is a preset of `configs/detector` with what was changed for a small machine. Every step resumes, so a
run that was cut off goes on. What came out of it, and what to think of it, is in `docs/detectors.md`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forgery_det.cli import main
from forgery_det.core.shipped import shipped_config

HEAD = ("--trainer.max_epochs", "60")
LITE = ("--model.detector_args.backbone", "tf_efficientnet_lite0", "--model.detector_args.backbone_weights", "package")
CNN = ("--trainer.max_epochs", "6", "--run.patience", "3")
CROP = ("--model.detector_args.crop_px", "128")

ZOO: dict[str, tuple[str, ...]] = {
    "frozen_probe": HEAD,
    "frozen_probe-crop": ("frozen_probe", *HEAD, "--model.detector_args.geometry", "crop"),
    "attention_probe": HEAD,
    "power_spectrum": HEAD,
    "rigid": (*LITE, "--model.detector_args.image_size_px", "224"),
    "warpad": (*LITE, "--model.detector_args.grid", "2"),
    "timm_classifier": CNN,
    "noise_residual": (*CNN, *CROP),
    "safe": (*CNN, *CROP),
    "patchcraft": (*CNN, "--model.detector_args.grid", "4", "--model.detector_args.n_patches", "64"),
}
"""Name of the run -> options of `fit`; a first word without dashes names the preset where it is not the run's name."""


def run(name: str, options: tuple[str, ...], dataset: Path, out: Path) -> Path | None:
    """Train and evaluate one detector; return its run folder, None when a step failed."""
    preset = name
    if not options[0].startswith("--"):
        preset, options = options[0], options[1:]
    folder = out / name
    print(f"\n== {name}", flush=True)
    config = ["--config", str(shipped_config(f"detector/{preset}.yaml"))]
    fitted = main(["fit", *config, "--data.dataset", str(dataset), "--run.out", str(folder), *options])
    judged = main(["evaluate", str(folder / "checkpoints" / "best.ckpt"), str(dataset), "--out", str(folder)])
    return None if fitted or judged else folder


def compare_zoo(dataset: Path, out: Path, names: list[str]) -> int:
    if not (dataset / "dataset.json").is_file() and main(["collect", "wild_mini", "--out", str(dataset)]):
        return 1
    folders = [run(name, ZOO[name], dataset, out) for name in names or ZOO]
    finished = [str(folder) for folder in folders if folder is not None]
    compared = main(["compare", *finished, "--out", str(out / "comparison")])
    return compared or int(len(finished) < len(folders))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="rows of ZOO; all by default")
    parser.add_argument("--dataset", type=Path, default=Path("datasets/wild_mini"))
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    arguments = parser.parse_args()
    sys.exit(compare_zoo(arguments.dataset, arguments.out, arguments.names))
