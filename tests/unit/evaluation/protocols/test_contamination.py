from __future__ import annotations

import numpy as np
import pytest
from protocol_data import by_key, make_context, real, row

from forgery_det.core.errors import ConfigError
from forgery_det.evaluation.protocols.contamination import contamination

JPEG = "label=real,perturbation=jpeg,severity=4"


def photographs(n: int, jumps: dict[tuple[str, int], int], per_source: int = 1, seed: int = 0) -> list[dict]:
    """Real images below the threshold of 1.6; under each condition the first `jumps` of them land above it."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n):
        source = f"photo-{index // per_source}"
        clean = float(rng.uniform(-2, 1))
        rows.append(real(index, clean, source_id=source, content_id=f"scene-{index}"))
        for (name, severity), count in jumps.items():
            logit = 4.0 if index < count else clean + rng.normal(0, 0.01)
            rows.append(real(index, logit, source_id=source, perturbation=name, severity=severity))
    return rows


def test_photographs_that_turn_after_a_save_are_found_and_tested() -> None:
    result = contamination(make_context(photographs(60, {("jpeg", 4): 15, ("webp", 4): 0})))
    found = by_key(result)
    assert found["fpr@fpr_5pct", JPEG].value == 0.25
    change = found["fpr_difference@fpr_5pct", JPEG]
    assert (change.value, change.n) == (0.25, 60)
    assert change.ci_low > 0.1
    assert change.note == "15 newly called generated, 0 no longer"
    # McNemar's mid-p of 15 against 0, by hand: 2 (1/2)^15 - (1/2)^15.
    assert found["fpr_difference_p@fpr_5pct", JPEG].value == pytest.approx(2.0**-15)
    assert found["fpr_difference_p_holm@fpr_5pct", JPEG].value == pytest.approx(2 * 2.0**-15)
    still = found["fpr_difference@fpr_5pct", "label=real,perturbation=webp,severity=4"]
    assert still.value == 0.0
    assert "0 newly called generated, 0 no longer" in still.note
    texts = [caveat.text for caveat in result.caveats]
    assert any("after 1 of 2 kinds of saving" in text and "25.0% after jpeg 4: quality 70" in text for text in texts)


def test_crops_of_one_photograph_are_one_observation() -> None:
    single = by_key(contamination(make_context(photographs(60, {("jpeg", 4): 12}))))
    crops = by_key(contamination(make_context(photographs(60, {("jpeg", 4): 12}, per_source=6))))
    key = ("fpr_difference_p@fpr_5pct", JPEG)
    assert single[key].value < 0.001
    # Two photographs turned, six crops each: no evidence.
    assert crops[key].value == pytest.approx(2.0**-2)


def test_a_detector_that_is_not_moved_is_not_warned_of() -> None:
    result = contamination(make_context(photographs(60, {("jpeg", 4): 1, ("social_feed", 2): 0})))
    assert not result.caveats


def test_generated_images_and_other_families_do_not_count() -> None:
    rows = photographs(30, {("jpeg", 4): 3, ("blur", 2): 30})
    rows += [row(100 + i, 5.0) for i in range(20)]
    rows += [row(100 + i, 5.0, perturbation="jpeg", severity=4) for i in range(20)]
    found = by_key(contamination(make_context(rows)))
    assert found["fpr@fpr_5pct", JPEG].n == 30
    assert not [key for _, key in found if "blur" in key]
    only = by_key(contamination(make_context(rows), families=["filter"]))
    assert only["fpr@fpr_5pct", "label=real,perturbation=blur,severity=2"].value == 1.0
    assert not [key for _, key in only if "jpeg" in key]


def test_reconstructions_are_set_beside_their_originals() -> None:
    rows = photographs(30, {})
    values = {"paradigm": "reconstruction", "generator": "sd-vae", "source_id": None}
    for index in range(24):
        logit = 3.0 if index < 18 else -1.0
        values |= {"source_id": f"photo-{index}", "content_id": f"scene-{index}" if index < 20 else "unknown"}
        rows.append(row(500 + index, logit, **values))
    found = by_key(contamination(make_context(rows)))
    key = "paradigm=reconstruction,generator=sd-vae"
    assert found["called_generated@fpr_5pct", key].value == 0.75
    change = found["called_generated_difference@fpr_5pct", key]
    assert (change.value, change.n) == (0.9, 20)
    assert change.note.endswith("18 newly called generated, 0 no longer; 20 of 24 have their original here")
    without = by_key(contamination(make_context(rows), reconstructions=False))
    assert not [name for name, _ in without if name.startswith("called_generated")]


def test_the_section_has_a_table_for_each_operating_point_and_a_chart_for_each_family() -> None:
    section = contamination(
        make_context(photographs(30, {("jpeg", 2): 1, ("jpeg", 4): 3, ("messenger", 1): 2}))
    ).section
    assert [table.title for table in section.tables] == [
        "FPR reached (5 % wanted), after a save", "FPR reached (1 % wanted), after a save",
    ]  # fmt: skip
    assert [chart.name for chart in section.charts] == ["contamination_codec", "contamination_chain"]
    assert section.charts[0].reference_y == 0.05
    for table in section.tables:
        assert {len(cells) + 1 for _, cells in table.rows} == {len(table.columns)}


def test_nothing_scored_and_nothing_estimable_are_said(hopeless) -> None:
    assert not contamination(hopeless).caveats
    clean_only = contamination(make_context(photographs(20, {})))
    (row_name, cells), *_ = clean_only.section.tables[0].rows
    assert row_name == "all"
    assert "n = 0: no copies of the families codec, chain were scored" in cells[0].note
    few = by_key(contamination(make_context(photographs(3, {("jpeg", 4): 1}))))
    assert few["fpr_difference@fpr_5pct", JPEG].note == "not estimable (n = 3 real images, fewer than 5)"


def test_options_are_checked() -> None:
    context = make_context(photographs(10, {}))
    with pytest.raises(
        ConfigError, match=r"Unknown name 'codecs' in `families` \(contamination\): did you mean 'codec'"
    ):
        contamination(context, families=["codecs"])
    with pytest.raises(ConfigError, match=r"Unknown operating point 'x' \(contamination\)"):
        contamination(context, operating_points=["x"])
