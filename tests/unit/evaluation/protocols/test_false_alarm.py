from __future__ import annotations

import numpy as np
import pytest
from protocol_data import by_key, make_context, real, reals, row
from scipy.stats import beta

from forgery_det.core.errors import ConfigError
from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.protocols.false_alarm import false_alarm


def photographs(source: str, count: int, n_alarms: int, start: int, per_photo: int = 1) -> list[dict]:
    """Real images of one source, `n_alarms` of them above every threshold."""
    return [
        real(start + i, 3.0 if i < n_alarms else -1.0, source=source, source_id=f"{source}-{i // per_photo}")
        for i in range(count)
    ]


def test_independent_images_get_the_exact_interval() -> None:
    rows = photographs("alps", 40, 4, 0) + [row(900 + i, 5.0) for i in range(10)]
    found = by_key(false_alarm(make_context(rows)))["fpr@fpr_5pct", "source=alps"]
    assert (found.value, found.n, found.higher_is_better) == (0.1, 40, False)
    assert found.ci_low == pytest.approx(beta.ppf(0.025, 4, 37))
    assert found.ci_high == pytest.approx(beta.ppf(0.975, 5, 36))
    assert "Clopper-Pearson" in found.note


def test_repeated_sources_get_a_wider_interval() -> None:
    single = by_key(false_alarm(make_context(photographs("alps", 60, 15, 0), n_replicates=1000)))
    crops = by_key(false_alarm(make_context(photographs("alps", 60, 15, 0, per_photo=5), n_replicates=1000)))
    key = ("fpr@fpr_5pct", "source=alps")
    width = {name: found[key].ci_high - found[key].ci_low for name, found in (("one", single), ("five", crops))}
    assert crops[key].value == single[key].value == 0.25
    assert width["five"] > 1.5 * width["one"]
    assert "Clopper-Pearson" not in crops[key].note


def test_a_bad_source_is_warned_of_and_good_ones_are_not() -> None:
    rows = photographs("alps", 100, 4, 0) + photographs("scans", 60, 20, 1000) + photographs("phones", 80, 3, 2000)
    result = false_alarm(make_context(rows))
    texts = [caveat.text for caveat in result.caveats]
    assert {caveat.level for caveat in result.caveats} == {"doubt"}
    assert [t for t in texts if "scans" in t and "33.3%" in t and "threshold for 5%" in t and "0.9833" in t]
    assert not [t for t in texts if "phones" in t and "5%" in t]
    assert not false_alarm(make_context(photographs("alps", 100, 1, 0))).caveats


def test_without_an_effect_few_sources_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    warned = 0
    for _ in range(15):
        rows = [
            real(i, 2.0 if rng.random() < 0.05 else 0.0, source=f"camera-{i % 10}") for i in range(400)
        ]  # fmt: skip
        warned += any("5%" in c.text for c in false_alarm(make_context(rows), operating_points=["fpr_5pct"]).caveats)
    assert warned <= 2


def test_generated_images_do_not_count() -> None:
    rows = photographs("alps", 20, 2, 0)
    alone = by_key(false_alarm(make_context(rows)))
    beside = by_key(false_alarm(make_context(rows + [row(500 + i, 9.0, source="alps") for i in range(20)])))
    assert alone == beside


def test_every_source_stands_in_the_table() -> None:
    result = false_alarm(make_context(photographs("alps", 20, 2, 0) + photographs("attic", 2, 1, 100)))
    table = result.section.tables[0]
    assert [name for name, _ in table.rows] == ["all real images", "alps", "attic"]
    assert all(len(cells) == len(table.columns) - 1 for _, cells in table.rows)
    small = by_key(result)["fpr@fpr_5pct", "source=attic"]
    assert small.note == "not estimable (n = 2 real images, fewer than 5)"


def test_without_thresholds_the_reason_is_given() -> None:
    found = by_key(false_alarm(make_context(reals(30), thresholds=False)))
    assert "there is no val" in found["fpr@fpr_5pct", "source=alps"].note


def test_an_unknown_operating_point_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown operating point 'fpr_5' \(false_alarm\): did you mean 'fpr_5pct'"):
        false_alarm(make_context(reals(5)), operating_points=["fpr_5"])


def test_hopeless_data_are_not_estimable(hopeless: ProtocolContext) -> None:
    by_key(false_alarm(hopeless))
