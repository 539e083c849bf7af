from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from protocol_data import by_key, make_context, reals, row
from sklearn.metrics import roc_auc_score

from forgery_det.core.errors import ConfigError
from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.protocols.temporal import period_name, temporal

DATES = {"old": date(2023, 3, 1), "mid": date(2024, 8, 1), "mid-held": date(2024, 7, 15), "new": date(2025, 2, 1)}


def generated(shift: dict[str, float], count: int = 40, seed: int = 1) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        row(100 * g + i, shift[name] + rng.normal(), generator=name, release_date=DATES.get(name))
        for g, name in enumerate(shift)
        for i in range(count)
    ]


EVEN = {"old": 2.0, "mid": 2.0, "mid-held": 2.0, "new": 2.0}
SEEN = {"old", "mid"}


def test_periods() -> None:
    day = date(2024, 8, 31)
    assert [period_name(day, p) for p in ("year", "half_year", "quarter")] == ["2024", "2024-H2", "2024-Q3"]
    result = temporal(make_context(generated(EVEN) + reals(60), seen=SEEN), period="quarter")
    assert [name for name, _ in result.section.tables[0].rows] == ["2023-Q1", "2024-Q3", "2025-Q1"]
    yearly = temporal(make_context(generated(EVEN) + reals(60), seen=SEEN), period="year")
    assert ("auroc", "release_period=2024") in by_key(yearly)


def test_a_period_is_its_generators_against_all_real_images() -> None:
    context = make_context(generated(EVEN) + reals(60), seen=SEEN)
    found = by_key(temporal(context))["auroc", "release_period=2024-H2"]
    judged = context.judged().filter(context.judged()["generator"].is_in(["mid", "mid-held", "camera"]))
    assert found.value == pytest.approx(roc_auc_score(judged["label"].to_numpy(), judged["logit"].to_numpy()))
    assert found.n == 140


def test_the_cutoff_is_the_last_release_among_the_seen() -> None:
    result = temporal(make_context(generated(EVEN) + reals(60), seen=SEEN))
    table = result.section.tables[1]
    assert [name for name, _ in table.rows] == ["until 2024-08-01", "until 2024-08-01, held out", "after 2024-08-01"]
    assert "mid" in table.explanation


def test_the_cutoff_may_lie_in_training_rows_that_were_not_scored() -> None:
    training = [row(9999, 0.0, split="train", generator="late", release_date=date(2024, 12, 31))]
    result = temporal(make_context(generated(EVEN) + reals(60), seen={"late"}, training=training))
    assert result.section.tables[1].rows[0][0] == "until 2024-12-31"
    assert result.section.charts[0].marks_x[0][1] == "last generator seen in training, 2024-12-31"


def test_a_planted_drop_after_the_cutoff_is_found() -> None:
    result = temporal(make_context(generated(EVEN | {"mid-held": 0.2, "new": 0.2}) + reals(80), seen=SEEN))
    found = by_key(result)
    difference = found["auroc_difference", "cutoff=after-until"]
    assert difference.ci_high < 0.0
    assert found["auroc_difference_p", "cutoff=after-until"].value < 0.01
    # What was held out before the cutoff is as hard: it is novelty, not time.
    held_out = found["auroc_difference", "cutoff=after-until,exposure=held_out"]
    assert held_out.ci_low < 0.0 < held_out.ci_high
    assert [c.level for c in result.caveats] == ["doubt"]
    assert "are harder" in result.caveats[0].text


def test_no_drop_is_not_called_one() -> None:
    levels = []
    for seed in range(10):
        result = temporal(make_context(generated(EVEN, seed=seed) + reals(60, seed + 100), seen=SEEN, n_replicates=2))
        levels += [c.level for c in result.caveats]
    assert len(levels) == 10
    assert levels.count("doubt") <= 2


def test_a_backbone_cutoff_is_judged_apart() -> None:
    result = temporal(
        make_context(generated(EVEN | {"new": 0.3}) + reals(60), seen=SEEN),
        cutoff="2023-12-31",
        backbone_cutoff="2025-01-01",
    )
    found = by_key(result)
    assert found["auroc", "backbone=after"].n == 100
    assert found["auroc", "cutoff=until"].n == 100
    assert [table.title for table in result.section.tables][-1] == "After the backbone's pre-training"
    assert "backbone's pre-training (2025-01-01)" in result.caveats[-1].text
    assert not [key for key in by_key(temporal(make_context(generated(EVEN)))) if key[1].startswith("backbone")]


def test_generators_without_a_date_are_named() -> None:
    result = temporal(make_context(generated(EVEN | {"mystery": 2.0, "riddle": 2.0}) + reals(60), seen=SEEN))
    table = result.section.tables[0]
    assert table.rows[-1][0] == "no date"
    assert "mystery, riddle" in table.explanation
    assert by_key(result)["auroc", "release_period=unknown"].n == 140


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (None, "nobody recorded which generators were seen"),
        ({"stranger"}, "no generator seen in training has a release"),
    ],
)
def test_without_a_cutoff_the_reason_is_given(seen: set[str] | None, reason: str) -> None:
    result = temporal(make_context(generated(EVEN) + reals(60), seen=seen))
    assert reason in by_key(result)["auroc_difference", "cutoff=after-until"].note
    assert not result.caveats


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"period": "half-year"}, r"Unknown period 'half-year' \(temporal\): did you mean 'half_year'"),
        ({"cutoff": "May 2024"}, r"Expected `cutoff` as YYYY-MM-DD, got 'May 2024' \(temporal\)"),
        ({"backbone_cutoff": 2024}, r"Expected `backbone_cutoff` as YYYY-MM-DD, got 2024 \(temporal\)"),
    ],
)
def test_bad_options_are_refused(options: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        temporal(make_context([]), **options)


def test_hopeless_data_are_not_estimable(hopeless: ProtocolContext) -> None:
    by_key(temporal(hopeless, cutoff="2025-06-01", backbone_cutoff="2024-01-01"))
    by_key(temporal(hopeless))
