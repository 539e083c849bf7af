"""Planted truth: equal detectors are not told apart more often than promised, a better one is; crops count once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.evaluation.compare_pairs import Common, adjust, common_images, compare_pairs, differ, letters
from forgery_det.evaluation.compare_read import read_runs
from forgery_det.evaluation.slice_metrics import Statistics
from forgery_det.metrics.delong import paired_delong
from synth.runs import normal_logits, table_dataset, table_run

ALPHA = 0.05
QUICK = Statistics(n_replicates=40, seed=0, min_per_class=5)


def common_of(manifest: Manifest, logits: list[np.ndarray]) -> Common:
    names = tuple("abcdefgh"[: len(logits)])
    return Common(names, manifest.frame, np.stack(logits), (0.5,) * len(logits), (0,) * len(logits))


def any_difference(common: Common) -> bool:
    pairs = adjust(compare_pairs(common, range(len(common.names)), QUICK))
    return any(differ(pair, ALPHA) for pair in pairs)


@pytest.mark.slow
def test_four_equal_detectors_are_separated_no_more_often_than_alpha(tmp_path: Path) -> None:
    manifest = table_dataset(tmp_path, 80, 60, crops=4)
    n_studies = 80
    false_claims = 0
    for study in range(n_studies):
        scene = normal_logits(manifest, 1.2, seed=1000 * study)
        logits = [scene + normal_logits(manifest, 0.0, seed=1000 * study + d + 1) for d in range(4)]
        false_claims += any_difference(common_of(manifest, logits))
    # With the promised 5 % this many false claims happen once in a thousand tries.
    assert false_claims <= stats.binom.ppf(0.999, n_studies, ALPHA)


def test_treating_crops_as_independent_would_break_the_promise(tmp_path: Path) -> None:
    """The same simulation without clusters claims far too much, so the test above can fail."""
    manifest = table_dataset(tmp_path, 160, 60, crops=16)
    label_N = manifest.frame["label"].to_numpy()
    false_claims = 0
    for study in range(60):
        a, b = (
            normal_logits(manifest, 1.0, seed=3 * study + d)
            + 3 * normal_logits(manifest, 0.0, seed=9000 + 3 * study + d)
            for d in range(2)
        )
        p_value = paired_delong(label_N, a, b).p_value
        false_claims += p_value is not None and p_value <= ALPHA
    assert false_claims > stats.binom.ppf(0.999, 60, ALPHA)


def test_a_clearly_better_detector_is_separated_and_the_equal_ones_are_not(tmp_path: Path) -> None:
    manifest = table_dataset(tmp_path, 120, 120, crops=2)
    scene = normal_logits(manifest, 0.8, seed=0)
    better = scene + normal_logits(manifest, 2.5, seed=1)
    logits = [better, scene + normal_logits(manifest, 0.0, 2), scene + normal_logits(manifest, 0.0, 3)]
    common = common_of(manifest, logits)
    pairs = adjust(compare_pairs(common, [0, 1, 2], QUICK))
    assert letters(pairs, [0, 1, 2], ALPHA) == ("a", "b", "b")
    assert pairs[0].delong.ci_low is not None
    assert pairs[0].delong.ci_low > 0.1
    assert pairs[0].bootstrap.difference == pytest.approx(pairs[0].delong.difference)
    assert pairs[0].decisions is not None
    assert pairs[0].decisions.only_first > pairs[0].decisions.only_second


def test_holm_counts_every_comparison_of_each_kind(tmp_path: Path) -> None:
    manifest = table_dataset(tmp_path, 40, 40)
    logits = [normal_logits(manifest, 0.4 * d, seed=d) for d in range(4)]
    pairs = adjust(compare_pairs(common_of(manifest, logits), [3, 2, 1, 0], QUICK))
    raw = [pair.delong.p_value for pair in pairs]
    smallest = int(np.argmin(raw))
    assert pairs[smallest].holm_delong == pytest.approx(min(1.0, 6 * raw[smallest]))


def test_a_missing_threshold_and_a_small_class_are_said_not_guessed(tmp_path: Path) -> None:
    manifest = table_dataset(tmp_path, 3, 40)
    logits = [normal_logits(manifest, 1.0, seed=d) for d in range(2)]
    common = Common(("a", "b"), manifest.frame, np.stack(logits), (None, 0.5), (0, 0))
    (pair,) = adjust(compare_pairs(common, [0, 1], QUICK))
    assert pair.decisions is None
    assert pair.holm_delong is None
    assert pair.delong.note == "not estimable (n = 3 real images, fewer than 5)"
    assert letters([pair], [0, 1], ALPHA) == ("-", "-")


def test_only_common_images_are_compared_and_the_rest_is_counted(tmp_path: Path) -> None:
    manifest = table_dataset(tmp_path / "data", 30, 30)
    logits = [normal_logits(manifest, 1.0, seed=d) for d in range(2)]
    runs = [
        table_run(tmp_path / "a", manifest, logits[0], keep=slice(0, 50)),
        table_run(tmp_path / "b", manifest, logits[1], keep=slice(10, 60)),
    ]
    common = common_images(read_runs(runs), "fpr_5pct")
    assert common.left_out == (10, 10)
    assert common.frame["image_id"].to_list() == manifest.frame["image_id"][10:50].to_list()
    np.testing.assert_array_equal(common.logit_DN, np.stack([values[10:50] for values in logits]))


def test_no_common_image_and_two_labels_are_errors(tmp_path: Path) -> None:
    first, second = table_dataset(tmp_path / "x", salt="x"), table_dataset(tmp_path / "y", salt="y")
    runs = [table_run(tmp_path / m.root.name / "run", m, normal_logits(m, 1.0, 0)) for m in (first, second)]
    with pytest.raises(ConfigError, match=r"^Expected runs that scored the same images, got none in common: .*x/run"):
        common_images(read_runs(runs, names=["a", "b"]), "fpr_5pct")
    relabelled = table_dataset(tmp_path / "z", n_real=50, n_generated=70, salt="x")
    runs[1] = table_run(tmp_path / "z" / "run", relabelled, normal_logits(relabelled, 1.0, 0))
    with pytest.raises(ConfigError, match=r"^Expected one label for each image, got two for [0-9a-f]{64}"):
        common_images(read_runs(runs, names=["a", "b"]), "fpr_5pct")
