from __future__ import annotations

from pathlib import Path

from forgery_det.audits import audit
from synth.planted import Planter


def test_a_probe_that_cannot_tell_the_classes_has_no_say(planter: Planter) -> None:
    (found,) = audit(planter.build(), only=["label_noise"], n_replicates=50).findings
    assert (found.level, found.value) == ("not_estimable", None)
    assert found.detail.startswith("The probe cannot tell the classes well enough to doubt a label: AUROC")
    assert found.detail.endswith("wholly above 0.7 needed.")


def test_right_labels_pass_with_a_rate(planter: Planter) -> None:
    for entry in planter.plan:
        entry["stripes"] = "xy"[entry["label"]]
    (found,) = audit(planter.build(), only=["label_noise"], n_replicates=50).findings
    assert (found.level, found.value, found.rows) == ("pass", 0.0, ())
    assert found.ci_high is not None
    assert found.ci_high < 0.1


def test_few_sources_are_not_estimable(planter: Planter) -> None:
    for entry in planter.of_label(0):
        entry["source_id"] = "one-photo"
    (found,) = audit(planter.build(), only=["label_noise"]).findings
    assert found.level == "not_estimable"
    assert "1 source_ids of real" in found.detail


def test_swapped_labels_warn_and_are_listed(tmp_path: Path) -> None:
    planter = Planter(tmp_path, n=144)
    for entry in planter.plan:
        entry["stripes"] = "xy"[entry["label"]]
    swapped = [10, 31, 52, 73, 98, 111]
    for index in swapped:
        planter.plan[index]["stripes"] = "yx"[planter.plan[index]["label"]]
    (found,) = audit(planter.build(), only=["label_noise"], n_replicates=50).findings
    assert found.level == "warn"
    assert found.passed
    assert found.value is not None
    assert 0.02 < found.value < 0.08
    listed = {row["source_id"] for row in found.rows}
    assert {planter.plan[index]["source_id"] for index in swapped} <= listed
    assert all(row["p_wrong"] > 0.5 for row in found.rows)
