from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from forgery_det.core.errors import ConfigError, UnknownNameError
from forgery_det.detectors import DETECTORS, Detector, create_detector, list_detectors
from forgery_det.detectors._adapters import ResidualLinear
from forgery_det.detectors.base import to_tensor
from forgery_det.detectors.residuals import ResidualFactors
from forgery_det.training.loss_terms import energy, margin_contrast, orthogonality, supervised_contrast
from forgery_det.training.losses import LOSSES, BinaryCrossEntropy, create_loss, cross_entropy

LABEL = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])


def embeddings(n: int = 6, width: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def tiny(name: str, **changes: Any) -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return create_detector(name, **(dict(DETECTORS.get(name).tiny) | changes)).train()


def images_for(detector: Detector, n: int = 6) -> torch.Tensor:
    pixels = np.random.default_rng(3).integers(0, 256, (n, 128, 128, 3), np.uint8)
    return torch.stack([to_tensor(detector.preprocess(image)) for image in pixels])


def step(loss: BinaryCrossEntropy, detector: Detector, image: torch.Tensor, label: torch.Tensor = LABEL) -> dict:
    with loss.watching(detector):
        logit = detector(image)
    return loss(detector, logit, label)


def contrast_by_hand(embedding: torch.Tensor, label: torch.Tensor, temperature: float) -> float:
    """Khosla et al. (2020), equation 2, in loops and plain floats."""
    unit = [(row / row.norm()).tolist() for row in embedding.double()]
    dots = [[sum(a * b for a, b in zip(u, v, strict=True)) / temperature for v in unit] for u in unit]
    losses = []
    for i in range(len(unit)):
        others = [a for a in range(len(unit)) if a != i]
        partners = [p for p in others if label[p] == label[i]]
        if partners:
            below = sum(math.exp(dots[i][a]) for a in others)
            losses.append(-sum(math.log(math.exp(dots[i][p]) / below) for p in partners) / len(partners))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
def test_supervised_contrast_is_the_published_equation(temperature: float) -> None:
    value = supervised_contrast(embeddings(), LABEL, temperature)
    assert float(value) == pytest.approx(contrast_by_hand(embeddings(), LABEL, temperature), rel=1e-5)


def test_an_image_without_a_partner_is_left_out_and_none_gives_zero() -> None:
    label = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    assert float(supervised_contrast(embeddings(), label)) == pytest.approx(
        contrast_by_hand(embeddings(), label, 0.07), rel=1e-5
    )
    one_each = embeddings(2).requires_grad_()
    value = supervised_contrast(one_each, torch.tensor([0.0, 1.0]))
    value.backward()
    assert value.item() == 0
    assert one_each.grad is not None
    assert not one_each.grad.any()


def test_identical_embeddings_give_the_logarithm_of_the_others() -> None:
    value = supervised_contrast(torch.ones(6, 3), LABEL)
    assert float(value) == pytest.approx(math.log(5), rel=1e-6)


def test_contrast_does_not_depend_on_length_or_order() -> None:
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    for term in (supervised_contrast, margin_contrast):
        expected = term(embeddings(), LABEL)
        torch.testing.assert_close(term(embeddings() * 7, LABEL), expected)
        torch.testing.assert_close(term(embeddings()[order], LABEL[order]), expected)


@pytest.mark.parametrize("margin", [0.4, 1.0, 1.9])
def test_margin_contrast_is_a_mean_over_the_pairs_that_count(margin: float) -> None:
    unit = embeddings() / embeddings().norm(dim=1, keepdim=True)
    same, other = [], []
    for i in range(6):
        for j in range(6):
            distance = float((unit[i] - unit[j]).norm())
            if i != j and LABEL[i] == LABEL[j]:
                same.append(distance)
            elif i != j and distance < margin:
                other.append(margin - distance)
    expected = sum(same) / len(same) + (sum(other) / len(other) if other else 0)
    assert float(margin_contrast(embeddings(), LABEL, margin)) == pytest.approx(expected, rel=1e-5)


def test_margin_contrast_has_a_gradient_where_embeddings_coincide() -> None:
    embedding = torch.ones(4, 3, requires_grad=True)
    margin_contrast(embedding, torch.tensor([0.0, 0.0, 1.0, 1.0])).backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


def layer(n_out: int, n_in: int, rank: int, parts: int = 1) -> ResidualLinear:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = ResidualLinear(torch.nn.Linear(n_in, parts * n_out), rank, parts)
        made.split()
        return made


@pytest.mark.parametrize(("n_out", "n_in", "rank", "parts"), [(8, 8, 1, 1), (8, 8, 3, 3), (12, 7, 2, 1), (7, 12, 2, 2)])
def test_orthogonality_is_the_norm_of_the_whole_gram_matrix(n_out: int, n_in: int, rank: int, parts: int) -> None:
    made = layer(n_out, n_in, rank, parts)
    factors = made.factors()
    u, _, v = torch.linalg.svd(factors.main_POI, full_matrices=True)
    n_main = min(n_out, n_in) - rank
    free = (u[..., n_main:], v[:, n_main:].mT)
    assert orthogonality(factors, *free).abs().max().item() < 1e-4
    moved = ResidualFactors(factors.main_POI, factors.u_POr + 0.3, factors.s_Pr * 2, factors.v_PrI * 1.5 - 0.1)
    for part, value in enumerate(orthogonality(moved, *free)):
        expected = 0.0
        for leading, learnt in ((u[part, :, :n_main], moved.u_POr[part]), (v[part, :n_main].T, moved.v_PrI[part].T)):
            both = torch.cat([leading, learnt], dim=1)
            expected += 0.5 * torch.linalg.matrix_norm(both.T @ both - torch.eye(both.shape[1])).item()
        assert value.item() == pytest.approx(expected, rel=1e-3)


def test_energy_is_the_squared_norm_of_each_part() -> None:
    made = layer(5, 6, 2, parts=3)
    weight = made.weight_main + made.residual().flatten(0, 1)
    expected = torch.stack([part.square().sum() for part in weight.chunk(3)])
    torch.testing.assert_close(energy(made.factors()), expected)


def test_effort_starts_at_zero_penalty_and_pays_for_turning() -> None:
    detector = tiny("effort")
    for module in detector.modules():
        if isinstance(module, ResidualLinear):
            module.split()
    loss = create_loss("bce_orthogonal", {"weight": 2.0, "norm_weight": 0.5}, detector)
    first = step(loss, detector, images_for(detector))
    assert list(first) == ["bce", "orthogonality", "norm_change"]
    assert first["orthogonality"].item() < 1e-3
    assert first["norm_change"].item() < 1e-3
    with torch.no_grad():
        for factors in detector.residual_factors():  # type: ignore[operator]
            factors.s_Pr.add_(0.5)
            factors.u_POr.mul_(1.2)
    second = step(loss, detector, images_for(detector))
    assert second["orthogonality"].item() > 0.1
    assert second["norm_change"].item() > 0.1
    sum(second.values()).backward()
    learning = [p for p in detector.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)
    assert not list(loss.state_dict()), "what the terms compare with is no part of a checkpoint"


def test_rine_contrasts_the_input_of_its_classifier() -> None:
    detector = tiny("rine", dropout=0.0)
    image = images_for(detector)
    loss = create_loss("bce_contrastive", {"weight": 0.25, "temperature": 0.3}, detector)
    parts = step(loss, detector, image)
    embedding = detector.head.embedding(detector.features(image))  # type: ignore[operator,union-attr]
    expected = 0.25 * contrast_by_hand(embedding.detach(), LABEL, 0.3)
    assert parts["contrastive"].item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(parts["bce"], cross_entropy(detector(image), LABEL))
    parts["contrastive"].backward()
    assert detector.head.alpha.grad is not None  # type: ignore[union-attr]
    assert detector.head.head[0].weight.grad is None, "the contrast must not reach the classifier"  # type: ignore


def test_branches_answer_alone() -> None:
    detector = tiny("co_spy")
    image = images_for(detector)
    parts = step(create_loss("bce_branches", {"weight": 3.0}, detector), detector, image)
    semantic, artefact = detector.branches(image).T  # type: ignore[operator]
    expected = 1.5 * (cross_entropy(semantic, LABEL) + cross_entropy(artefact, LABEL))
    torch.testing.assert_close(parts["branches"], expected)


@pytest.mark.parametrize(
    ("loss", "detector", "text"),
    [
        (
            "bce_contrastive",
            "frozen_probe",
            r"Expected a detector with an embedding \(`embedding_into`\).*frozen_probe",
        ),
        ("bce_margin", "power_spectrum", r"Expected a detector with an embedding .*power_spectrum, which names none"),
        ("bce_branches", "rine", r"Expected a detector with logits of branches \(`branch_logits_into`\).*rine"),
        ("bce_orthogonal", "c2p_clip", r"whose weights learn in a residual.*got c2p_clip\. Use `model\.loss: bce`"),
    ],
)
def test_a_detector_that_lacks_what_a_loss_needs_is_told(loss: str, detector: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        create_loss(loss, {}, tiny(detector))


def test_names_and_settings_are_checked() -> None:
    detector = tiny("rine")
    with pytest.raises(UnknownNameError, match=r"Unknown loss 'bce_contrast': did you mean 'bce_contrastive'"):
        create_loss("bce_contrast", {}, detector)
    with pytest.raises(ConfigError, match=r"Unknown setting 'temprature' of the loss bce_contrastive: did you mean"):
        create_loss("bce_contrastive", {"temprature": 1}, detector)
    with pytest.raises(ConfigError, match=r"Unknown setting 'detector' of the loss bce"):
        create_loss("bce", {"detector": detector}, detector)
    for name, arguments, text in (
        ("bce_contrastive", {"weight": 0}, r"Expected `loss_args\.weight` above 0, got 0"),
        ("bce_contrastive", {"temperature": -1}, r"Expected `loss_args\.temperature` above 0, got -1"),
        ("bce_margin", {"margin": 2.5}, r"Expected `loss_args\.margin` in \(0, 2\], got 2\.5"),
    ):
        with pytest.raises(ConfigError, match=text):
            create_loss(name, arguments, detector)
    with pytest.raises(ConfigError, match=r"at least 0, one above, got 0 and 0"):
        create_loss("bce_orthogonal", {"weight": 0, "norm_weight": 0}, tiny("effort"))


def test_an_embedding_that_cannot_move_is_told() -> None:
    detector = tiny("rine")
    loss = create_loss("bce_contrastive", {}, detector)
    for parameter in detector.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"Expected something that learns before `head\.head` of rine"):
        step(loss, detector, images_for(detector))


def test_terms_are_computed_in_full_precision_under_autocast() -> None:
    detector = tiny("drct")
    image = images_for(detector)
    loss = create_loss("bce_margin", {}, detector)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = step(loss, detector, image)
    assert all(value.dtype == torch.float32 for value in parts.values())


def test_every_loss_is_documented_with_an_equation_and_known_by_its_name() -> None:
    for name in LOSSES:
        assert issubclass(LOSSES.get(name), BinaryCrossEntropy)
        assert name == "bce" or f"`{name}`" in LOSSES.get(name).__doc__


OFFERS = [name for name in list_detectors() if DETECTORS.get(name).embedding_into is not None]


def test_the_papers_that_contrast_embeddings_can() -> None:
    assert {"rine", "drct"} <= set(OFFERS)


@pytest.mark.parametrize("name", OFFERS)
def test_an_offered_embedding_is_read_once_and_learns(name: str) -> None:
    detector = tiny(name)
    image = images_for(detector)
    loss = create_loss("bce_margin", {}, detector)
    with loss.watching(detector):
        detector(image)
    embedding = loss.read(detector)  # type: ignore[attr-defined]
    assert embedding.ndim == 2
    assert embedding.shape[0] == len(image)
    margin_contrast(embedding, LABEL).backward()
    assert any(p.grad is not None and p.grad.any() for p in detector.trainable_parameters())
