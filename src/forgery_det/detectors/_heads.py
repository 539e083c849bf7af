"""Official two-class heads as one logit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def one_logit_head(state: Mapping[str, Tensor], layer: str, generated: int = 1) -> dict[str, Tensor]:
    """Make one logit of a last layer with two classes: `z = z_generated - z_real`, the log-odds of its softmax.

    A softmax of two classes is a logistic function of the difference, so nothing is lost. A layer that has one output
    already, or is absent, stays as it is.

    Args:
        state: A state dict.
        layer: Name of the linear layer in it.
        generated: Which of the two outputs means generated.

    Example:
        >>> import torch
        >>> one_logit_head({"fc.bias": torch.tensor([1.0, 3.0])}, "fc")["fc.bias"]
        tensor([2.])
    """
    reduced = dict(state)
    for name in (f"{layer}.weight", f"{layer}.bias"):
        if name in reduced and reduced[name].ndim and len(reduced[name]) == 2:
            reduced[name] = (reduced[name][generated] - reduced[name][1 - generated])[None]
    return reduced
