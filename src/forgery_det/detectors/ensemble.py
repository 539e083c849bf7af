"""Several detectors, one logit: a weighted sum of the members' standardised logits (`detectors.combination`).

    z(x) = b + sum over m of w_m (z_m(x) - mean_m) / spread_m

Each member sees the image through its own geometry. Where all share one, it is the ensemble's; otherwise the ensemble
takes whole images and applies each member's geometry inside, to the same uint8 values as if it stood alone.

Nothing here learns by gradient: members are trained on their own, then weighed on `val`. The command is `forgery-det
ensemble CHECKPOINT CHECKPOINT --dataset DATASET --out RUN`; in Python:

    members = [load_checkpoint(path).detector for path in paths]
    logit_NM = numpy.stack([...], axis=1)                       # of the val split
    ensemble = ensemble_of(members, fit_combination(label_N, logit_NM))

and `save_checkpoint` writes it with all members in one file. An ensemble of one member gives a training-free detector
(`rigid`, `warpad`, `aeroblade`) a logit that a temperature can make a probability of; `forgery-det fit` makes it.

There is no paper to compare with; the tests hold the equation above.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors._training_free import TrainingFree
from forgery_det.detectors.base import Detector, DetectorCard, to_tensor
from forgery_det.detectors.combination import Combination
from forgery_det.detectors.registry import DETECTORS, build_detector
from forgery_det.transforms.preprocess import Preprocess

DEFAULT_MEMBERS: tuple[Mapping[str, Any], ...] = ({"detector": "frozen_probe"}, {"detector": "attention_probe"})


class Ensemble(TrainingFree):
    """Weighted logits of several detectors; before `combine`, their plain mean.

    Args:
        members: One dictionary each: `detector`, its registry name, and `args`, its settings (may be left out).
        backbone_weights: `members`: each as its settings say; None: random ones for all, for loading a checkpoint.

    Raises:
        ConfigError: There is no member, a dictionary has other keys, or a member's setting is wrong.
        UnknownNameError: No detector is called so.
        WeightsError: A member's backbone weights cannot be had.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="ensemble",
        paper="none: non-negative logistic regression on the members' logits",
        year=2026,
        summary="weighted logits of several detectors, weights fitted on val",
        backbone="those of its members",
        input="whole image, or the geometry that all members share",
        not_exported="when members differ in geometry, or one cannot be",
    )
    members: nn.ModuleList
    mean_M: Tensor
    spread_M: Tensor
    weight_M: Tensor
    bias: Tensor
    tiny: ClassVar[Mapping[str, Any]] = {
        "members": (
            {
                "detector": "timm_classifier",
                "args": {"backbone": "test_resnet", "backbone_weights": None, "image_size_px": 64},
            },
            {
                "detector": "rigid",
                "args": {"backbone": "test_resnet", "backbone_weights": None, "image_size_px": 32},
            },
        )
    }

    def __init__(
        self,
        members: Sequence[Mapping[str, Any]] = DEFAULT_MEMBERS,
        backbone_weights: Literal["members"] | None = "members",
    ) -> None:
        super().__init__()
        if backbone_weights not in ("members", None):
            raise ConfigError(f"Expected `backbone_weights` to be 'members' or None, got {backbone_weights!r}.")
        if not members:
            raise ConfigError("Expected at least one member of the ensemble, got none.")
        built = [_build(member, fetch=backbone_weights is not None) for member in members]
        geometries = [member.preprocess for member in built]
        self.shares_geometry = all(geometry == geometries[0] for geometry in geometries)
        self.preprocess = geometries[0] if self.shares_geometry else Preprocess()
        self.members = nn.ModuleList(built).requires_grad_(False)
        for name in ("mean_M", "spread_M", "weight_M"):
            self.register_buffer(name, torch.zeros(len(built)))
        self.register_buffer("bias", torch.zeros(()))
        self.combine(Combination.average(len(built)))
        self.train()

    def combine(self, combination: Combination) -> None:
        """Set means, spreads, weights and bias.

        Raises:
            ConfigError: It is of another number of members.
        """
        if len(combination.weight) != len(self.members):
            raise ConfigError(
                f"Expected a combination of {len(self.members)} members, got one of {len(combination.weight)}."
            )
        self.mean_M.copy_(torch.tensor(combination.mean))
        self.spread_M.copy_(torch.tensor(combination.spread))
        self.weight_M.copy_(torch.tensor(combination.weight))
        self.bias.copy_(torch.tensor(combination.bias))

    def export_refusal(self, format_name: str) -> str | None:
        """Return why it cannot be exported: members with geometries of their own, or a member that cannot be."""
        if not self.shares_geometry:
            names = ", ".join(member.card.name for member in self._detectors())
            return (
                f"its members ({names}) see the image through different geometries, and geometry is done in Pillow's "
                "arithmetic outside the graph, once. Export the members one by one, or weigh members that share theirs."
            )
        reasons = (member.export_refusal(format_name) for member in self._detectors())
        return next((reason for reason in reasons if reason is not None), None)

    def _detectors(self) -> list[Detector]:
        return [member for member in self.members if isinstance(member, Detector)]

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        scaled_BM = (self.member_logits(image_BCHW) - self.mean_M.float()) / self.spread_M.float()
        # A sum, not a matrix product, which autocast would bring down to half precision.
        logit_B: Tensor = (scaled_BM * self.weight_M.float()).sum(dim=1) + self.bias.float()
        return logit_B

    @torch.no_grad()
    def member_logits(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_BM`, float32: what the members say, each alone.

        Args:
            image_BCHW: In [0, 1] after `preprocess`; steps of 1 / 255 where the members' geometries differ.
        """
        return torch.stack([self._member_logit(member, image_BCHW) for member in self.members], dim=1)

    def _member_logit(self, member: nn.Module, image_BCHW: Tensor) -> Tensor:
        if self.shares_geometry:
            shared_B: Tensor = member(image_BCHW)
            return shared_B.float()
        byte_BHWC = (image_BCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        geometry: Any = member.preprocess
        # One at a time: views of a member may differ in size from image to image.
        logits = [member(to_tensor(geometry(byte_HWC))[None].to(image_BCHW.device)) for byte_HWC in byte_BHWC]
        return torch.cat(logits).float()


def ensemble_of(detectors: Sequence[Detector], combination: Combination | None = None) -> Ensemble:
    """Return an ensemble of trained detectors, built by `create_detector` or `load_checkpoint`; they are copied.

    Args:
        detectors: The members.
        combination: How they are weighed; None is the plain mean.

    Raises:
        ConfigError: A detector was built directly, so its settings are not known, or it sees images through another
            geometry than its settings give.
    """
    members = []
    for detector in detectors:
        if detector.arguments is None:
            raise ConfigError(
                f"Expected members built by create_detector, got a {type(detector).__name__} built directly."
            )
        members.append({"detector": detector.card.name, "args": dict(detector.arguments)})
    ensemble = build_detector("ensemble", {"members": tuple(members), "backbone_weights": None})
    if not isinstance(ensemble, Ensemble):
        raise TypeError(f"the registry's ensemble is a {type(ensemble).__name__}")
    for member, detector in zip(ensemble.members, detectors, strict=True):
        if member.preprocess != detector.preprocess:
            raise ConfigError(
                f"Expected {detector.card.name} with the geometry that its settings give, got another one: an ensemble "
                "builds its members from their settings."
            )
        member.load_state_dict(detector.state_dict())
    if combination is not None:
        ensemble.combine(combination)
    return ensemble.eval()


def _build(member: Mapping[str, Any], fetch: bool) -> Detector:
    if not isinstance(member, Mapping) or "detector" not in member or not set(member) <= {"detector", "args"}:
        raise ConfigError(f"Expected a member as a dictionary with `detector` and `args`, got {member!r}.")
    name, settings = str(member["detector"]), dict(member.get("args") or {})
    if not fetch and "backbone_weights" in inspect.signature(DETECTORS.get(name)).parameters:
        settings["backbone_weights"] = None
    return build_detector(name, settings)
