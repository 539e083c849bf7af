"""Losses of training, by name: binary cross-entropy on the logit, and a term beside it where a method needs one.

    L = BCE(z, y) + weight * term,    BCE(z, y) = -y log s(z) - (1 - y) log(1 - s(z)),    s: the logistic function

Every loss keeps the cross-entropy at weight 1, so logits mean the same whatever stands beside it. `val/loss` is the
cross-entropy alone: runs with different losses are compared, and their checkpoints chosen, by one number. A
paper's `(1 - a) BCE + a term` is `weight = a / (1 - a)` here, the same minimum.

Class balance comes from sampling, not from weights. A cross-entropy over two cosine similarities (FatFormer) or over
two outputs is the binary one on their difference, so those methods need no loss of their own.

A loss says at the start of a training whether the detector offers what it needs: `Detector.embedding_into`,
`Detector.branch_logits_into`, or `residual_factors`. To add one: a class here or in a module beside, and one line.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import Registry, did_you_mean
from forgery_det.detectors.base import Detector

LOSSES = Registry(
    "loss",
    {
        "bce": "forgery_det.training.losses:BinaryCrossEntropy",
        "bce_branches": "forgery_det.training.loss_terms:BranchLoss",
        "bce_contrastive": "forgery_det.training.loss_terms:ContrastiveLoss",
        "bce_margin": "forgery_det.training.loss_terms:MarginLoss",
        "bce_orthogonal": "forgery_det.training.loss_terms:OrthogonalLoss",
    },
)


def cross_entropy(logit_B: Tensor, label_B: Tensor) -> Tensor:
    """Return the mean binary cross-entropy, in float32.

    Example:
        >>> cross_entropy(torch.zeros(2), torch.tensor([0.0, 1.0]))
        tensor(0.6931)
    """
    return F.binary_cross_entropy_with_logits(logit_B.float(), label_B.float())


class BinaryCrossEntropy(nn.Module):
    """The cross-entropy alone, and the base of the others.

    Args:
        detector: What will be trained; it is looked at, not kept.
    """

    def __init__(self, detector: Detector) -> None:  # noqa: ARG002 - the losses built on this one look at it
        super().__init__()

    @contextmanager
    def watching(self, detector: Detector) -> Iterator[None]:  # noqa: ARG002 - for subclasses
        """Note, while the detector computes logits, what the term reads inside it."""
        yield

    def terms(self, detector: Detector, label_B: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - for subclasses
        """Return the terms beside the cross-entropy by name, each a scalar times its weight."""
        return {}

    def forward(self, detector: Detector, logit_B: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        """Return the parts of the loss by name, cross-entropy first; the loss is their sum.

        Args:
            detector: What gave the logits, inside `watching`.
            logit_B: Of the batch.
            label_B: 1 generated, 0 real.
        """
        # Half precision would round similarities that are divided by small temperatures.
        with torch.autocast(logit_B.device.type, enabled=False):
            return {"bce": cross_entropy(logit_B, label_B), **self.terms(detector, label_B)}


def create_loss(name: str, arguments: Mapping[str, Any], detector: Detector) -> BinaryCrossEntropy:
    """Build the loss called `name` for a detector.

    Args:
        name: Registry name.
        arguments: Its keywords; an unknown one is an error.
        detector: What will be trained.

    Raises:
        UnknownNameError: No loss is called so.
        ConfigError: The loss takes no such keyword, a value is out of range, or the detector lacks what it needs.

    Example:
        >>> from forgery_det.detectors import create_detector
        >>> detector = create_detector("frozen_probe", backbone="test_resnet", backbone_weights=None, image_size_px=64)
        >>> create_loss("bce", {}, detector)
        BinaryCrossEntropy()
    """
    loss_class = LOSSES.get(name)
    known = [keyword for keyword in inspect.signature(loss_class).parameters if keyword != "detector"]
    for keyword in arguments:
        if keyword not in known:
            raise ConfigError(f"Unknown setting {keyword!r} of the loss {name}: {did_you_mean(keyword, known)}")
    loss: BinaryCrossEntropy = loss_class(detector, **arguments)
    return loss
