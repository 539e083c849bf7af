from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from forgery_det.audits.context import AuditContext, AuditOptions
from forgery_det.audits.shortcut import NEGATIVE_BIAS, Measured, Shortcut, judged, level_of, measure
from forgery_det.core.manifest import Manifest
from forgery_det.metrics.estimate import Estimate
from synth.planted import Planter

SHORTCUT = Shortcut("file_facts", "Facts of the files alone", "Mend it.", "fail", lambda: None)


@pytest.fixture
def context(planter: Planter) -> AuditContext:
    del planter.plan[10:]
    return AuditContext(Manifest.load(planter.build()), AuditOptions(0.6, 100, None, 4, 50, 0))


@pytest.mark.parametrize(
    ("estimate", "level"),
    [
        (Estimate(0.9, 0.85, 0.95, 100), "fail"),
        (Estimate(0.9, 0.6, 0.95, 10), "pass"),
        (Estimate(0.9, 0.6001, 0.95, 10), "fail"),
        (Estimate(0.5, None, None, 10, "interval not estimable"), "pass"),
        (Estimate(0.9, None, None, 10, "interval not estimable"), "fail"),
        (Estimate(0.2, 0.1, 0.3, 100), "pass"),
        (Estimate.missing(3, "not estimable (n = 3)"), "not_estimable"),
    ],
)
def test_the_whole_interval_is_held_against_the_limit(estimate: Estimate, level: str) -> None:
    assert level_of(estimate, 0.6, "fail") == level


def test_sentences(context: AuditContext) -> None:
    def detail(estimate: Estimate, inverted: bool = False) -> str:
        return judged(context, SHORTCUT, Measured("split=test", estimate, inverted)).detail

    assert detail(Estimate(0.9, 0.85, 0.95, 100)) == (
        "Facts of the files alone tell real from generated with AUROC 0.90 [0.85, 0.95], wholly above 0.6. Mend it."
    )
    assert detail(Estimate(0.45, 0.4, 0.5, 100)).endswith(f"AUROC 0.45 [0.40, 0.50], limit 0.6. {NEGATIVE_BIAS}")
    assert detail(Estimate(0.55, 0.4, 0.7, 100)).endswith(
        "AUROC 0.55 [0.40, 0.70]; the interval reaches above 0.6, so a shortcut is not excluded."
    )
    assert detail(Estimate(0.65, 0.57, 0.73, 100)) == (
        "Facts of the files alone tell real from generated a little: AUROC 0.65 [0.57, 0.73], not wholly above 0.6."
    )
    assert "with opposite sign between them (AUROC 0.10 [0.05, 0.15], below every" in detail(
        Estimate(0.1, 0.05, 0.15, 100), inverted=True
    )
    assert detail(Estimate.missing(3, "not estimable (n = 3)")) == "Facts of the files alone: not estimable (n = 3)."


def test_an_inverted_shortcut_has_the_level_of_a_shortcut(context: AuditContext) -> None:
    assert judged(context, SHORTCUT, Measured("overall", Estimate(0.1, 0.05, 0.15, 10), True)).level == "fail"
    assert judged(context, SHORTCUT, Measured("overall", Estimate(0.1, 0.05, 0.15, 10))).level == "pass"


def test_contrary_collections_are_measured_as_inverted(context: AuditContext) -> None:
    """Ten scenes hold both classes: in five the generated images are larger, in the other five smaller."""
    rng = np.random.default_rng(0)
    scene, label = np.repeat(np.arange(10), 20), np.tile([0, 1], 100)
    frame = pl.DataFrame(
        {
            "label": label,
            "source_id": [f"scene{number}" for number in scene],
            "split": ["train"] * 200,
            "paradigm": ["diffusion" if one else "camera" for one in label],
            "generator": ["flux" if one else "camera" for one in label],
        }
    )
    feature = (2 * label - 1) * np.where(scene % 2, 1, -1) + rng.normal(size=200) * 0.3
    (contrary,) = measure(context, LogisticRegression, frame, feature[:, None])
    assert contrary.inverted
    assert judged(context, SHORTCUT, contrary).level == "fail"
    (chance,) = measure(context, LogisticRegression, frame, rng.normal(size=(200, 1)))
    assert not chance.inverted
