from __future__ import annotations

import numpy as np
import pytest
from protocol_data import by_key, make_context, real, reals, row
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from forgery_det.core.errors import ConfigError
from forgery_det.core.types import REAL
from forgery_det.evaluation.protocols.robustness import robustness
from forgery_det.evaluation.protocols.robustness_results import area_weights
from forgery_det.transforms.perturb import perturb

N = 40
BLURS = [("blur", severity) for severity in (1, 2, 4)]


def picture(label: int, seed: int) -> np.ndarray:
    """A smooth 48 px image; a generated one is redder and has a fine checkerboard."""
    rng = np.random.default_rng(seed)
    image = 120 + 300 * gaussian_filter(rng.normal(size=(48, 48, 3)), (4, 4, 0))
    y, x = np.mgrid[:48, :48]
    image += label * 8 * np.where((x + y) % 2, 1, -1)[..., None]
    image[..., 0] += 12 * label + rng.normal(0, 4)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def fine_detail(image: np.ndarray) -> float:
    """A detector that keys on high frequency."""
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean() - 8)


def redness(image: np.ndarray) -> float:
    """A detector that does not."""
    return float(image[..., 0].mean() - image[..., 1:].mean() - 6)


def scored(detector, conditions=BLURS) -> list[dict]:
    rows = []
    for index in range(2 * N):
        make, image = (row if index % 2 else real), picture(index % 2, index)
        rows.append(make(index, detector(image)))
        for name, severity in conditions:
            logit = detector(perturb(image, name, severity, f"{index:064x}"))
            rows.append(make(index, logit, perturbation=name, severity=severity))
    return rows


def shifted(shift: dict[tuple[str, int], float], spread: float = 0.1, seed: int = 3) -> list[dict]:
    """Separable logits; under each condition those of generated images move by `shift`."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(2 * N):
        make, clean = (row if index % 2 else real), float(rng.normal(2.0 * (index % 2)))
        rows.append(make(index, clean))
        for (name, severity), by in shift.items():
            logit = clean + by * (index % 2) + rng.normal(0, spread)
            rows.append(make(index, logit, perturbation=name, severity=severity))
    return rows


def test_a_detector_of_fine_detail_falls_under_blur_and_another_stays() -> None:
    fine, red = (robustness(make_context(scored(detector))) for detector in (fine_detail, redness))
    found = by_key(fine)
    assert found["auroc", "perturbation=none,severity=0"].value == 1.0
    lost = found["auroc_difference", "perturbation=blur,severity=4"]
    assert lost.value < -0.2
    assert lost.ci_high < 0
    assert found["auroc_difference_p_holm", "perturbation=blur,severity=4"].value < 0.01
    assert any("The ranking suffers under" in caveat.text and "blur" in caveat.text for caveat in fine.caveats)
    kept = by_key(red)
    assert abs(kept["auroc_difference", "perturbation=blur,severity=4"].value) < 0.02
    assert kept["auroc", "perturbation=none,severity=0"].value > 0.7
    assert abs(kept["auroc_area_difference", "perturbation=blur"].value) < 0.02
    assert not any("ranking" in caveat.text for caveat in red.caveats)


def test_values_are_those_of_scikit_learn_and_of_counting() -> None:
    rows = shifted({("jpeg", 2): -1.0, ("jpeg", 5): -2.0})
    found = by_key(robustness(make_context(rows)))
    auroc = {}
    for severity in (2, 5):
        mine = [r for r in rows if r["severity"] == severity]
        label, logit = np.array([r["label"] for r in mine]), np.array([r["logit"] for r in mine])
        key = f"perturbation=jpeg,severity={severity}"
        auroc[severity] = roc_auc_score(label, logit)
        assert found["auroc", key].value == pytest.approx(auroc[severity])
        # 1.6 is the clean threshold of the context.
        assert found["tpr@fpr_5pct", key].value == pytest.approx((logit[label == 1] >= 1.6).mean())
        assert found["fpr@fpr_5pct", key].value == pytest.approx((logit[label == 0] >= 1.6).mean())
        clean = found["tpr@fpr_5pct", "perturbation=none,severity=0"].value
        change = found["tpr_difference@fpr_5pct", key]
        assert change.value == pytest.approx(found["tpr@fpr_5pct", key].value - clean)
        assert change.n == N
    assert found["auroc_area", "perturbation=jpeg"].value == pytest.approx((auroc[2] + auroc[5]) / 2)
    worst = found["auroc_worst", "overall"]
    assert worst.value == pytest.approx(auroc[5])
    assert worst.note == "at jpeg 5: quality 60; picked as the lowest of 2 conditions"


def test_area_weights_are_the_trapezoid_rule() -> None:
    for severities in ([1, 2, 3, 4], [1, 2, 4, 8], [2, 7]):
        y = np.random.default_rng(0).random(len(severities))
        expected = np.trapezoid(y, severities) / (severities[-1] - severities[0])
        assert np.dot(area_weights(severities), y) == pytest.approx(expected)
    assert area_weights([3]) == [1.0]


def test_a_detector_that_keeps_its_ranking_but_slides_below_the_threshold_is_warned_of() -> None:
    rows = shifted({("noise", 3): 0.0})
    for entry in rows:
        if entry["perturbation"] == "noise":
            entry["logit"] -= 3.0
    result = robustness(make_context(rows))
    found = by_key(result)
    assert abs(found["auroc_difference", "perturbation=noise,severity=3"].value) < 0.03
    texts = [caveat.text for caveat in result.caveats]
    assert len(texts) == 1
    assert texts[0].startswith(
        "Fewer generated images are called generated, at the clean threshold “fpr_5pct”, under 1 of"
    )


def test_more_false_alarms_are_warned_of() -> None:
    rows = shifted({("blur", 2): 0.0})
    for entry in rows:
        if entry["perturbation"] == "blur":
            entry["logit"] += 2.0
    texts = [caveat.text for caveat in robustness(make_context(rows)).caveats]
    assert any(text.startswith("More real images are called generated") for text in texts)


def test_only_images_with_a_copy_are_compared_and_the_missing_ones_counted() -> None:
    rows = [
        entry for entry in shifted({("webp", 8): -1.0}) if entry["severity"] == 0 or entry["image_id"][-1] not in "01"
    ]
    broken = next(entry for entry in rows if entry["severity"] == 8)
    broken["logit"] = float("nan")
    n_copies = sum(entry["severity"] == 8 for entry in rows) - 1
    found = by_key(robustness(make_context(rows)))["auroc", "perturbation=webp,severity=8"]
    assert found.n == n_copies
    assert found.note == f"{2 * N - n_copies} images have no scored copy and are left out"


def test_holm_counts_all_conditions_and_no_effect_is_not_called_one() -> None:
    rows = shifted({("jpeg", severity): 0.0 for severity in range(1, 9)}, spread=0.5)
    result = robustness(make_context(rows))
    found = by_key(result)
    raw = [found["auroc_difference_p", f"perturbation=jpeg,severity={s}"].value for s in range(1, 9)]
    after = [found["auroc_difference_p_holm", f"perturbation=jpeg,severity={s}"].value for s in range(1, 9)]
    assert min(after) == pytest.approx(min(1.0, 8 * min(raw)))
    assert not result.caveats


def test_the_section_shows_each_family_and_has_a_heat_map() -> None:
    section = robustness(make_context(shifted({("jpeg", 1): 0.0, ("jpeg", 3): -1.0, ("hflip", 1): 0.0}))).section
    heat, *curves = section.charts
    assert heat.rows == ("jpeg", "hflip")
    assert heat.columns == ("1", "2", "3")
    assert heat.values[0][1] is None
    assert heat.values[1][1:] == (None, None)
    assert [chart.name for chart in curves] == ["robustness_codec", "robustness_geometry"]
    assert curves[0].series[0].x == (0.0, 1.0, 3.0)
    assert [table.title for table in section.tables] == [
        "By perturbation", "By severity: saved once more", "By severity: crops, flips, turns",
    ]  # fmt: skip
    for table in section.tables:
        assert {len(cells) + 1 for _, cells in table.rows} == {len(table.columns)}


def test_nothing_scored_and_nothing_estimable_are_said(hopeless) -> None:
    result = robustness(hopeless)
    assert not result.caveats
    clean_only = robustness(make_context(reals(20) + [row(i, 2.0) for i in range(20)]))
    assert "n = 0: no perturbed copies were scored" in clean_only.records[0].note
    one_class = robustness(make_context([entry for entry in shifted({("jpeg", 1): 0.0}) if entry["label"] == REAL]))
    found = by_key(one_class)
    for metric in ("auroc", "auroc_difference", "tpr_difference@fpr_5pct"):
        record = found[metric, "perturbation=jpeg,severity=1"]
        assert record.value is None
        assert "n = 0 generated images" in record.note
    assert found["auroc_area", "perturbation=jpeg"].value is None
    assert found["fpr@fpr_5pct", "perturbation=jpeg,severity=1"].value is not None


def test_options_are_checked_and_missing_thresholds_named() -> None:
    context = make_context(shifted({("jpeg", 1): 0.0}), thresholds=False)
    found = by_key(robustness(context))["tpr_difference@fpr_5pct", "perturbation=jpeg,severity=1"]
    assert "not estimable (no threshold:" in found.note
    with pytest.raises(ConfigError, match=r"Unknown operating point 'fpr_5' \(robustness\): did you mean 'fpr_5pct'"):
        robustness(context, operating_points=["fpr_5"])
    with pytest.raises(ConfigError, match=r"Expected at least one of `operating_points` \(robustness\)"):
        robustness(context, operating_points=[])
