"""What every audit gets: the dataset, the settings, and the seeded sample that the classifiers look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_file
from forgery_det.core.manifest import Manifest
from forgery_det.transforms.preprocess import ImageArray

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """Every setting that can change a finding.

    Args:
        auroc_limit: A shortcut fails when the whole interval of its AUROC lies above this, in [0.5, 1).
        max_images: The classifiers look at a seeded sample of at most this many images.
        check_files: The bytes of at most this many files are compared with the manifest; None for all of them.
        phash_distance: Images whose perceptual hashes differ in at most this many bits are called alike.
        n_replicates: Bootstrap replicates of an interval.
        seed: Of the folds, the classifiers, the samples and the bootstrap.
        distance_limit: Distributions of a file fact differ too much when the whole interval of their distance lies
            above this, in [0, 1). A distance of 0.2 lets a rule on that fact be right for 60 % of the images.
        crop_images: Crops are looked for among a seeded sample of at most this many images; None for all, 0 for none.
        prompt_similarity: Prompts whose words overlap by at least this share (Jaccard) are called alike, in (0, 1].
        noise_auroc: Label candidates are judged only where the probe's AUROC is certainly above this, in [0.5, 1).
        checkpoint: Detector for `reencode_shift`; None leaves that audit out.
        reencode_limit: Largest shift of the detector's AUROC by a shared re-encoding, in [0, 0.5].
        batch_size: Images a forward pass of the detector.
        device: Where the detector runs, in torch's words.
    """

    auroc_limit: float
    max_images: int
    check_files: int | None
    phash_distance: int
    n_replicates: int
    seed: int
    distance_limit: float = 0.2
    crop_images: int | None = 10_000
    prompt_similarity: float = 0.8
    noise_auroc: float = 0.7
    checkpoint: Path | None = None
    reencode_limit: float = 0.05
    batch_size: int = 32
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0.5 <= self.auroc_limit < 1.0:
            raise ConfigError(f"Expected `auroc_limit` in [0.5, 1), got {self.auroc_limit} (audit).")
        for name, low in (
            ("max_images", 1), ("check_files", 0), ("n_replicates", 2), ("crop_images", 0), ("batch_size", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"Expected `{name}` of at least {low}, got {value} (audit).")
        for name, in_range, text in (
            ("distance_limit", 0.0 <= self.distance_limit < 1.0, "[0, 1)"),
            ("prompt_similarity", 0.0 < self.prompt_similarity <= 1.0, "(0, 1]"),
            ("noise_auroc", 0.5 <= self.noise_auroc < 1.0, "[0.5, 1)"),
            ("reencode_limit", 0.0 <= self.reencode_limit <= 0.5, "[0, 0.5]"),
        ):
            if not in_range:
                raise ConfigError(f"Expected `{name}` in {text}, got {getattr(self, name)} (audit).")
        if self.checkpoint is not None and not self.checkpoint.is_file():
            raise ConfigError(f"Expected a checkpoint file, got none at {self.checkpoint} (audit).")
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"Expected `device` to be cpu or cuda, got {self.device!r} (audit).")


@dataclass(frozen=True, slots=True)
class AuditContext:
    """The dataset under audit and the settings."""

    manifest: Manifest
    options: AuditOptions

    def sample(self, limit: int | None) -> pl.DataFrame:
        """Return a seeded choice of at most `limit` rows (None: all), sorted by `image_id` whatever the order was."""
        frame = self.manifest.frame.sort("image_id")
        if limit is None or frame.height <= limit:
            return frame
        chosen = np.random.default_rng(self.options.seed).choice(frame.height, limit, replace=False)
        return frame[np.sort(chosen)]

    def sample_note(self, n: int) -> str:
        """Return a sentence when only some of the images were looked at."""
        total = len(self.manifest)
        return "" if n == total else f" Looked at {n} of {total} images."

    def map_images(self, paths: Iterable[str], function: Callable[[ImageArray], T]) -> list[T | None]:
        """Decode images side by side and return the function of each, in order.

        None stands where a file cannot be used; `missing_files` names those.
        """

        def one(path: str) -> T | None:
            try:
                return function(decode_file(self.manifest.image_file(path)).image_HWC)
            except ImageError:
                return None

        with ThreadPoolExecutor() as pool:
            return list(pool.map(one, paths))
