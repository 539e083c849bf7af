"""What stands beside the cross-entropy: contrast of embeddings, branches that answer alone, orthogonal factors.

The terms are functions of tensors, so that they can be tested against formulas written another way; a class each ties
one to a detector. See `training.losses` for the sum that they are part of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.base import Detector
from forgery_det.detectors.residuals import HasResidualFactors, ResidualFactors
from forgery_det.training.losses import BinaryCrossEntropy, cross_entropy


class ReadingLoss(BinaryCrossEntropy):
    """A loss that reads what goes into one module of the detector.

    Args:
        detector: What will be trained.
        weight: Of the term, above 0.
    """

    place: str
    """Attribute of `Detector` that names the module."""
    wanted: str
    """What that module must be given, for errors."""

    def __init__(self, detector: Detector, weight: float) -> None:
        super().__init__(detector)
        self.weight = _positive("weight", weight)
        self._read: Tensor | None = None
        if getattr(detector, self.place) is None:
            raise ConfigError(
                f"Expected a detector with {self.wanted} (`{self.place}`) for the loss {type(self).__name__}, got "
                f"{detector.card.name}, which names none. Use `model.loss: bce`."
            )

    @contextmanager
    def watching(self, detector: Detector) -> Iterator[None]:
        """Read the input of the module while the block runs."""
        read: list[Tensor] = []

        def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001 - torch's signature
            read.append(inputs[0])

        handle = detector.get_submodule(getattr(detector, self.place)).register_forward_pre_hook(note)
        try:
            yield
        finally:
            handle.remove()
        if len(read) != 1:
            raise RuntimeError(f"{getattr(detector, self.place)} was called {len(read)} times in one forward pass")
        self._read = read[0]

    def read(self, detector: Detector) -> Tensor:
        """Return what was read in the last `watching`, float32, once.

        Raises:
            ConfigError: Nothing before the module learns, so the term could move nothing.
        """
        if self._read is None:
            raise RuntimeError("a loss was asked for before the detector computed logits inside `watching`")
        value, self._read = self._read, None
        if torch.is_grad_enabled() and not value.requires_grad:
            raise ConfigError(
                f"Expected something that learns before `{getattr(detector, self.place)}` of {detector.card.name}, got "
                f"{self.wanted} that cannot move: the loss {type(self).__name__} would do "
                "nothing. Use `model.loss: bce`."
            )
        return value.float()


class ContrastiveLoss(ReadingLoss):
    """`bce_contrastive`: cross-entropy and supervised contrast of the embedding, see `supervised_contrast`.

    RINE (Koutlis and Papadopoulos, ECCV 2024) trains so. Its authors sum the cross-entropy over a batch of 128 and take
    the mean of the contrast, so their factor 0.2 is 0.2 / 128 = 0.0016 beside the mean that is taken here.

    Args:
        detector: It has an embedding.
        weight: Above 0.
        temperature: Above 0.
    """

    place, wanted = "embedding_into", "an embedding"

    def __init__(self, detector: Detector, weight: float = 0.1, temperature: float = 0.07) -> None:
        super().__init__(detector, weight)
        self.temperature = _positive("temperature", temperature)

    def terms(self, detector: Detector, label_B: Tensor) -> dict[str, Tensor]:
        """Return the weighted contrast."""
        return {"contrastive": self.weight * supervised_contrast(self.read(detector), label_B, self.temperature)}


class MarginLoss(ReadingLoss):
    """`bce_margin`: cross-entropy and contrast with a margin on the embedding, see `margin_contrast`.

    DRCT (Chen et al., ICML 2024) trains so, with 0.7 of the one and 0.3 of the other: weight = 0.3 / 0.7.

    Args:
        detector: It has an embedding.
        weight: Above 0.
        margin: Distance from which two classes count as apart, in (0, 2]: unit vectors are no further apart.
    """

    place, wanted = "embedding_into", "an embedding"

    def __init__(self, detector: Detector, weight: float = 0.4286, margin: float = 1.0) -> None:
        super().__init__(detector, weight)
        if not 0 < margin <= 2:
            raise ConfigError(f"Expected `loss_args.margin` in (0, 2], got {margin}.")
        self.margin = margin

    def terms(self, detector: Detector, label_B: Tensor) -> dict[str, Tensor]:
        """Return the weighted contrast."""
        return {"margin": self.weight * margin_contrast(self.read(detector), label_B, self.margin)}


class BranchLoss(ReadingLoss):
    """`bce_branches`: cross-entropy of the fused logit and of each branch's own logit.

        L = BCE(z, y) + weight / K * sum over k of BCE(z_k, y)

    Co-Spy (Cheng et al., CVPR 2025) trains each branch alone and then the fusion; here all learn at once, which asks of
    every branch that it can answer alone and needs one run instead of three.

    Args:
        detector: Its last module fuses logits of branches.
        weight: Above 0.
    """

    place, wanted = "branch_logits_into", "logits of branches"

    def __init__(self, detector: Detector, weight: float = 1.0) -> None:
        super().__init__(detector, weight)

    def terms(self, detector: Detector, label_B: Tensor) -> dict[str, Tensor]:
        """Return the weighted cross-entropy of the branches."""
        logit_BK = self.read(detector)
        return {"branches": self.weight * cross_entropy(logit_BK, label_B[:, None].expand_as(logit_BK))}


class OrthogonalLoss(BinaryCrossEntropy):
    """`bce_orthogonal`: cross-entropy and the two terms of Effort (Yan et al., ICML 2025), each a mean over weights.

        L = BCE + weight * mean(orthogonality) + norm_weight * mean(| |W|^2 - |W_0|^2 |)

    See `orthogonality`; W_0 is the weight as training found it. The second term keeps what a layer does on the whole.
    Both are zero at the start when the factors were split off the published weight. The authors take both at 1.

    Args:
        detector: It has weights with a learnt residual (`residual_factors`).
        weight: Of the first term, at least 0.
        norm_weight: Of the second, at least 0.
    """

    def __init__(self, detector: Detector, weight: float = 1.0, norm_weight: float = 1.0) -> None:
        super().__init__(detector)
        if weight < 0 or norm_weight < 0 or weight + norm_weight == 0:
            raise ConfigError(
                f"Expected `loss_args.weight` and `loss_args.norm_weight` of at least 0, one above, got {weight} and "
                f"{norm_weight}."
            )
        if not isinstance(detector, HasResidualFactors):
            raise ConfigError(
                "Expected a detector whose weights learn in a residual (`residual_factors`, as effort) for the loss "
                f"OrthogonalLoss, got {detector.card.name}. Use `model.loss: bce`."
            )
        self.weight, self.norm_weight = weight, norm_weight
        # What the terms compare with is computed now, before a checkpoint is resumed from, so that it is the same then.
        self._names: list[tuple[str, str, str]] = []
        for index, factors in enumerate(detector.residual_factors()):
            names = (f"left_{index}", f"right_{index}", f"energy_{index}")
            for name, value in zip(names, _reference(factors), strict=True):
                self.register_buffer(name, value, persistent=False)
            self._names.append(names)

    def terms(self, detector: Detector, label_B: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - of the weights alone
        """Return both weighted terms."""
        if not isinstance(detector, HasResidualFactors):
            raise TypeError(f"{type(detector).__name__} has no residual factors")
        angles, changes = [], []
        for factors, names in zip(detector.residual_factors(), self._names, strict=True):
            left_POk, right_PIk, energy_P = (self.get_buffer(name) for name in names)
            angles.append(orthogonality(factors, left_POk, right_PIk))
            changes.append((energy(factors) - energy_P).abs())
        return {
            "orthogonality": self.weight * torch.cat(angles).mean(),
            "norm_change": self.norm_weight * torch.cat(changes).mean(),
        }


def supervised_contrast(embedding_BD: Tensor, label_B: Tensor, temperature: float = 0.07) -> Tensor:
    """Return the supervised contrast of unit-length embeddings, averaged over the images that have a partner.

        l_i = -1 / |P(i)| * sum over p in P(i) of log( exp(e_i . e_p / t) / sum over a != i of exp(e_i . e_a / t) )

    P(i) are the other images of i's class. Khosla et al., Supervised contrastive learning, NeurIPS 2020, equation 2. A
    batch in which no image has a partner gives 0.

    Args:
        embedding_BD: Of any length; zeros are refused by no one and stay zeros.
        label_B: 1 generated, 0 real.
        temperature: Above 0.

    Example:
        >>> together = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> supervised_contrast(together, torch.tensor([0, 0, 1, 1]), temperature=0.07) < 1e-5
        tensor(True)
    """
    unit_BD = F.normalize(embedding_BD, dim=1)
    itself_BB = torch.eye(len(unit_BD), dtype=torch.bool, device=unit_BD.device)
    similarity_BB = (unit_BD @ unit_BD.T / temperature).masked_fill(itself_BB, -torch.inf)
    log_share_BB = similarity_BB.log_softmax(dim=1).masked_fill(itself_BB, 0.0)
    partner_BB = (label_B[:, None] == label_B[None, :]) & ~itself_BB
    n_partners_B = partner_BB.sum(dim=1)
    paired_B = n_partners_B > 0
    if not bool(paired_B.any()):
        return embedding_BD.sum() * 0.0
    loss_B = -(log_share_BB * partner_BB).sum(dim=1)[paired_B] / n_partners_B[paired_B]
    return loss_B.mean()


def margin_contrast(embedding_BD: Tensor, label_B: Tensor, margin: float = 1.0) -> Tensor:
    """Return the contrast with a margin over all pairs of unit-length embeddings.

        mean over pairs of one class of d  +  mean over pairs of two classes of max(0, margin - d),    d = |e_i - e_j|

    Each mean is taken over the pairs that are not zero, so that pairs which are apart already do not dilute the others;
    a side without such a pair counts as 0. Hadsell, Chopra and LeCun, CVPR 2006, with distances that are not squared,
    as DRCT's authors train.

    Args:
        embedding_BD: Of any length.
        label_B: 1 generated, 0 real.
        margin: Above 0.

    Example:
        >>> apart = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
        >>> margin_contrast(apart, torch.tensor([0, 0, 1]))
        tensor(0.)
    """
    unit_BD = F.normalize(embedding_BD, dim=1)
    first, second = torch.triu_indices(len(unit_BD), len(unit_BD), offset=1, device=unit_BD.device)
    distance_P = torch.linalg.vector_norm(unit_BD[first] - unit_BD[second], dim=1)
    same_P = label_B[first] == label_B[second]
    return _mean_of_nonzero(distance_P[same_P]) + _mean_of_nonzero((margin - distance_P[~same_P]).clamp(min=0))


def orthogonality(factors: ResidualFactors, left_POk: Tensor, right_PIk: Tensor) -> Tensor:
    """Return how far the learnt factors of each part have turned, [P].

        ( | [U_m U]^T [U_m U] - I |  +  | [V_m; V] [V_m; V]^T - I | ) / 2        (Frobenius norms)

    U_m and V_m are the leading singular vectors of the part that stays. They are never needed as such: |U_m^T U| is the
    length of U outside the space that they leave free.

    Args:
        factors: Of one weight.
        left_POk: Orthonormal columns that span what U_m leaves free, for each part.
        right_PIk: The same for V_m.
    """
    return 0.5 * (_turned(factors.u_POr, left_POk) + _turned(factors.v_PrI.mT, right_PIk))


def energy(factors: ResidualFactors) -> Tensor:
    """Return the squared Frobenius norm of each part of a weight, residual included, [P]."""
    weight_POI = factors.main_POI + (factors.u_POr * factors.s_Pr[:, None, :]) @ factors.v_PrI
    energy_P: Tensor = weight_POI.square().sum(dim=(1, 2))
    return energy_P


def _turned(learnt_PDr: Tensor, free_PDk: Tensor) -> Tensor:
    outside_PDr = learnt_PDr - free_PDk @ (free_PDk.mT @ learnt_PDr)
    rank = learnt_PDr.shape[-1]
    gram_Prr = learnt_PDr.mT @ learnt_PDr - torch.eye(rank, device=learnt_PDr.device)
    # The cross products stand twice in the matrix of the equation. vector_norm has gradient 0 at 0, where a square root
    # of a sum of squares has none.
    both = torch.cat([2**0.5 * outside_PDr.flatten(1), gram_Prr.flatten(1)], dim=1)
    turned_P: Tensor = torch.linalg.vector_norm(both, dim=1)
    return turned_P


@torch.no_grad()
def _reference(factors: ResidualFactors) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the leading singular vectors of the part that stays leave free, left and right, and the energy."""
    n_leading = min(factors.main_POI.shape[1:]) - factors.s_Pr.shape[1]
    u_POO, _, v_PII = torch.linalg.svd(factors.main_POI.float(), full_matrices=True)
    return u_POO[..., n_leading:].clone(), v_PII[:, n_leading:].mT.clone(), energy(factors)


def _mean_of_nonzero(value_N: Tensor) -> Tensor:
    n_nonzero = (value_N > 0).sum().clamp(min=1)
    mean: Tensor = value_N.sum() / n_nonzero
    return mean


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ConfigError(f"Expected `loss_args.{name}` above 0, got {value}.")
    return value
