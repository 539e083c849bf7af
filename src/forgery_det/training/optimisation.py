"""AdamW with linear warm-up and cosine decay (Loshchilov & Hutter, ICLR 2019 and 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from forgery_det.core.errors import ConfigError


@dataclass(frozen=True)  # no slots: jsonargparse reads the defaults from __dict__
class OptimizerSettings:
    """Settings of AdamW and its schedule.

    Args:
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay; biases and one-dimensional parameters are spared.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        warmup_fraction: Share of all steps over which the rate climbs from 0 to `lr`, in [0, 1).
        final_lr_fraction: Rate at the last step over `lr`, in [0, 1].
    """

    lr: float = 1e-3
    weight_decay: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.999
    warmup_fraction: float = 0.05
    final_lr_fraction: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.warmup_fraction < 1:
            raise ConfigError(f"Expected `optimizer.warmup_fraction` in [0, 1), got {self.warmup_fraction}.")
        if not 0 <= self.final_lr_fraction <= 1:
            raise ConfigError(f"Expected `optimizer.final_lr_fraction` in [0, 1], got {self.final_lr_fraction}.")
        if self.lr <= 0:
            raise ConfigError(f"Expected `optimizer.lr` above 0, got {self.lr}.")


def lr_factor(step: int, total_steps: int, settings: OptimizerSettings) -> float:
    """Return the learning rate at `step` (from 0) over the peak rate.

    Example:
        >>> settings = OptimizerSettings(warmup_fraction=0.1)
        >>> [round(lr_factor(step, 100, settings), 3) for step in (0, 9, 10, 55, 100)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warmup_steps = int(settings.warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    floor = settings.final_lr_fraction
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(module: nn.Module, settings: OptimizerSettings, total_steps: int) -> tuple[Optimizer, LambdaLR]:
    """Return the optimiser over the parameters that learn, and its per-step schedule.

    Raises:
        ConfigError: Nothing in the module learns.
    """
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not learning:
        raise ConfigError(f"Expected a detector with parameters that learn, got {type(module).__name__} with none.")
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    optimizer = AdamW([g for g in groups if g["params"]], lr=settings.lr, betas=betas)
    return optimizer, LambdaLR(optimizer, lambda step: lr_factor(step, total_steps, settings))
