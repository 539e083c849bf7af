"""From uint8 arrays to the float tensors that detectors take.

Apart from `preprocess`, which serving uses without torch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from forgery_det.transforms.preprocess import ImageArray


def to_tensor(image: ImageArray) -> Tensor:
    """Return float32 in [0, 1] with channels first: HWC -> CHW, VHWC -> VCHW.

    Example:
        >>> to_tensor(np.full((2, 3, 3), 255, np.uint8)).shape
        torch.Size([3, 2, 3])
    """
    return torch.from_numpy(np.moveaxis(image, -1, -3).astype(np.float32, order="C")).div_(255.0)
