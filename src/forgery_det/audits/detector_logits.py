"""Logits of a detector on images that were changed after decoding. The only module of the audits that needs torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from forgery_det.core.manifest import Manifest
from forgery_det.data.batches import collate
from forgery_det.data.dataset import ManifestDataset
from forgery_det.detectors.base import Detector
from forgery_det.detectors.checkpoint import load_checkpoint
from forgery_det.transforms.preprocess import ImageArray

Change = Callable[[ImageArray], ImageArray]


def load_detector(checkpoint: Path, device: str) -> Detector:
    """Return the detector of a checkpoint on a device, in evaluation mode.

    Raises:
        WeightsError: The checkpoint does not fit.
    """
    return load_checkpoint(checkpoint).detector.to(torch.device(device)).eval()


def logits(
    detector: Detector, manifest: Manifest, change: Change | None, *, batch_size: int, device: str
) -> dict[str, float]:
    """Return `image_id` -> logit of the images that can be used; others, and logits that are no number, are absent.

    Args:
        detector: On the device, in evaluation mode.
        manifest: The images.
        change: Applied to each decoded image, before preprocessing; None scores the image as stored.
        batch_size: Images a forward pass.
        device: Where the detector is.
    """
    # The hook of training augmentation: what it does here is the same for every image, so its generator is not used.
    augment = None if change is None else lambda image_HWC, _generator: change(image_HWC)
    dataset = ManifestDataset(manifest, detector.preprocess, augment=augment)
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=collate, generator=torch.Generator())
    found: dict[str, float] = {}
    for batch in loader:
        if batch.image_id:
            with torch.inference_mode():
                logit_B = detector(batch.image_BCHW.to(torch.device(device))).double().cpu().numpy()
            pairs = zip(batch.image_id, logit_B.tolist(), strict=True)
            found |= {image_id: logit for image_id, logit in pairs if np.isfinite(logit)}
    return found
