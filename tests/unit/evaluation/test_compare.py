from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.tables import PREDICTION_SCHEMA, RESULT_SCHEMA, read_table, write_table
from forgery_det.evaluation.compare import compare
from forgery_det.evaluation.compare_page import p_text
from forgery_det.evaluation.filters import Filter
from forgery_det.metrics.ranking import auroc
from synth.runs import normal_logits, table_dataset, table_run

STRENGTHS = {"good": 3.0, "middling": 1.0, "twin": 1.0}


def runs_on(root: Path, manifest: Manifest, seed: int = 0) -> list[Path]:
    return [
        table_run(root / name, manifest, normal_logits(manifest, strength, seed + index), checkpoint=f"{name}-sha")
        for index, (name, strength) in enumerate(STRENGTHS.items())
    ]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return table_dataset(tmp_path / "photos", 90, 90, crops=2)


def value(results: pl.DataFrame, metric: str, key: str) -> float:
    found = results.filter(pl.col("metric") == metric, pl.col("slice").str.ends_with(key))
    return float(found["value"].item())


def test_the_folder_holds_records_pages_figures_and_the_trace(tmp_path: Path, manifest: Manifest) -> None:
    out = compare(runs_on(tmp_path, manifest), tmp_path / "out", n_replicates=100)
    results = read_table(out / "results.parquet", RESULT_SCHEMA)
    label_N, logit_N = manifest.frame["label"].to_numpy(), normal_logits(manifest, 3.0, 0)
    assert value(results, "auroc", ",detector=good") == pytest.approx(auroc(label_N, logit_N))
    caught = float((logit_N[label_N == 1] >= 1.0).mean())
    assert value(results, "tpr@fpr_5pct", ",detector=good") == pytest.approx(caught)
    assert value(results, "p_holm@delong", "detector=good,versus=middling") < 0.001
    assert set(results["slice"].str.extract(r"^(dataset=photos split test)")) == {"dataset=photos split test"}
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "compare"
    assert record["facts"]["manifests"] == [manifest.digest()]
    assert {line["detector"]: line["groups"] for line in record["facts"]["boards"][0]["standings"]} == {
        "good": "a", "middling": "b", "twin": "b",
    }  # fmt: skip
    assert {path.stem for path in (out / "figures").glob("*.svg")} == {"board-1-auroc", "board-1-differences"}


def test_the_summary_says_which_differences_are_real(tmp_path: Path, manifest: Manifest) -> None:
    out = compare(runs_on(tmp_path, manifest), tmp_path / "out", n_replicates=100)
    page = (out / "compare.html").read_text()
    assert "good ranks images better than" in page
    assert "the other difference may be luck" in page
    assert "that is no proof that they are equal" in page
    assert "No critical-difference diagram: it needs at least 3 detectors" in page
    assert "some of these detectors were trained on" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_perturbed_copies_do_not_count(tmp_path: Path, manifest: Manifest) -> None:
    runs = runs_on(tmp_path, manifest)
    compare(runs, tmp_path / "out", n_replicates=40)
    before = (tmp_path / "out" / "results.parquet").read_bytes()
    clean = read_table(runs[0] / "predictions.parquet", PREDICTION_SCHEMA)
    copies = clean.with_columns(pl.lit("jpeg").alias("perturbation"), pl.lit(3).alias("severity"), -pl.col("logit"))
    write_table(pl.concat([clean, copies.cast(PREDICTION_SCHEMA)]), runs[0] / "predictions.parquet")
    compare(runs, tmp_path / "out", n_replicates=40)
    assert (tmp_path / "out" / "results.parquet").read_bytes() == before


def test_equal_input_gives_equal_bytes(tmp_path: Path, manifest: Manifest) -> None:
    runs = runs_on(tmp_path, manifest)
    compare(runs, tmp_path / "out", n_replicates=60)
    files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "run.json")
    before = [path.read_bytes() for path in files]
    compare(runs, tmp_path / "out", n_replicates=60)
    assert [path.read_bytes() for path in files] == before


@pytest.mark.slow
def test_detectors_on_several_datasets_get_a_critical_difference_diagram(tmp_path: Path) -> None:
    runs = []
    for index in range(3):
        manifest = table_dataset(tmp_path / f"set-{index}", 40, 40, salt=str(index))
        runs += runs_on(tmp_path / f"runs-{index}", manifest, seed=10 * index)
    out = compare(runs, tmp_path / "out", n_replicates=60)
    results = read_table(out / "results.parquet", RESULT_SCHEMA)
    assert value(results, "mean_rank", "detector=good") == 1.0
    # q 0.05 for 3 detectors is 2.343 (Demsar 2006, table 5)
    assert value(results, "critical_difference", "overall") == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 3)), abs=1e-3)
    assert (out / "figures" / "ranks.svg").is_file()
    # nine comparisons are adjusted together, three on each dataset
    raw = results.filter(pl.col("metric") == "p@delong")["value"]
    adjusted = results.filter(pl.col("metric") == "p_holm@delong")["value"]
    assert len(raw) == 9
    assert adjusted[int(raw.arg_min())] == pytest.approx(9 * raw.min())


def test_held_out_images_leave_out_what_any_detector_was_trained_on(tmp_path: Path, manifest: Manifest) -> None:
    runs = [
        table_run(tmp_path / "a", manifest, normal_logits(manifest, 1.0, 0), seen=["sd-1"]),
        table_run(tmp_path / "b", manifest, normal_logits(manifest, 1.0, 1), seen=["flux-1"]),
    ]
    out = compare(runs, tmp_path / "out", images="exposure=held_out", n_replicates=40)
    results = read_table(out / "results.parquet", RESULT_SCHEMA)
    wanted = manifest.frame.filter((pl.col("label") == 0) | (pl.col("generator") == "janus-1"))
    n = results.filter(pl.col("metric") == "auroc")["n"]
    assert set(n) == {wanted.height}
    runs.append(table_run(tmp_path / "c", manifest, normal_logits(manifest, 1.0, 2), seen=None))
    with pytest.raises(ConfigError, match=r"^Expected runs that say which generators training used"):
        compare(runs, tmp_path / "out", images="exposure=held_out", n_replicates=40)


def test_runs_of_other_datasets_are_compared_on_common_images_with_a_note(tmp_path: Path) -> None:
    small = table_dataset(tmp_path / "small", 40, 40)
    larger = table_dataset(tmp_path / "larger", 40, 90)
    runs = [
        table_run(tmp_path / "a", small, normal_logits(small, 1.0, 0)),
        table_run(tmp_path / "b", larger, normal_logits(larger, 1.0, 1)),
    ]
    page = (compare(runs, tmp_path / "out", n_replicates=40) / "compare.html").read_text()
    assert "80 are common and compared, 50 of b are left out" in page


def test_a_moved_dataset_is_found_and_a_changed_one_refused(tmp_path: Path, manifest: Manifest) -> None:
    runs = runs_on(tmp_path, manifest)[:2]
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"Evaluate again, or say where it lies now with `--datasets`\.$"):
        compare(runs, tmp_path / "out", n_replicates=40)
    compare(runs, tmp_path / "out", datasets=[tmp_path / "moved"], n_replicates=40)
    table_dataset(tmp_path / "moved", 90, 91, crops=2)
    with pytest.raises(ConfigError, match=r"moved has changed since \(manifest [0-9a-f]{12}\)"):
        compare(runs, tmp_path / "out", datasets=[tmp_path / "moved"], n_replicates=40)


def test_input_errors_teach(tmp_path: Path, manifest: Manifest) -> None:
    runs = runs_on(tmp_path, manifest)
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"^Expected at least 2 runs to compare, got 1\.$"):
        compare(runs[:1], out)
    with pytest.raises(ConfigError, match=r"^Expected a run folder with run\.json, got .*nowhere\. Make one with"):
        compare([runs[0], tmp_path / "nowhere"], out)
    with pytest.raises(ConfigError, match=r"^Expected different detectors on one dataset, got 'good' 2 times: "):
        compare([runs[0], runs[0]], out)
    with pytest.raises(ConfigError, match=r"^Expected one name for each of the 2 runs, got 1 in `names`\.$"):
        compare(runs[:2], out, names=["x"])
    with pytest.raises(ConfigError, match=r"^Unknown operating point 'fpr_5': did you mean 'fpr_5pct'"):
        compare(runs, out, operating_point="fpr_5")
    with pytest.raises(ConfigError, match=r"^Unknown paradigm 'mlm' \(`images`, photos\): did you mean 'mllm'\?"):
        compare(runs, out, images="paradigm=mlm")
    with pytest.raises(ConfigError, match=r"^Expected a new folder, or one of `forgery-det compare`, got another run"):
        compare(runs, runs[0])


def test_two_checkpoints_of_one_detector_are_told_apart_by_their_folders(tmp_path: Path, manifest: Manifest) -> None:
    runs = [
        table_run(tmp_path / name / "run", manifest, normal_logits(manifest, 1.0, i), detector=detector)
        for i, (name, detector) in enumerate((("one", "npr"), ("two", "npr"), ("three", "rine")))
    ]
    results = read_table(compare(runs, tmp_path / "out", n_replicates=40) / "results.parquet", RESULT_SCHEMA)
    names = results.filter(pl.col("metric") == "auroc")["slice"].str.extract(r"detector=(.*)$").to_list()
    assert sorted(names) == ["one/run", "rine", "two/run"]


def test_filters_read_the_words_of_slices() -> None:
    frame = pl.DataFrame(
        {"label": [0, 1, 1, 1], "generator": ["camera", "a", "b", "c"], "paradigm": ["camera", "mllm", "gan", "mllm"],
         "decoder": ["unknown", "vq", "vq", "vae"]}
    )  # fmt: skip
    wanted = Filter.parse("paradigm=mllm|gan,decoder=vq")
    assert frame.filter(wanted.generated())["generator"].to_list() == ["a", "b"]
    assert frame.filter(wanted.with_real())["generator"].to_list() == ["camera", "a", "b"]
    assert frame.filter(Filter.parse("overall").generated()).height == 3
    with pytest.raises(ConfigError, match=r"^Expected a filter such as `paradigm=mllm`, got 'mllm'\.$"):
        Filter.parse("mllm")
    with pytest.raises(ConfigError, match=r"^Unknown column 'paradigms' in the filter 'paradigms=x': did you mean"):
        Filter.parse("paradigms=x")


def test_p_values_are_never_shown_as_zero() -> None:
    assert [p_text(p) for p in (0.0, 0.0009, 0.05, 1.0)] == ["< 0.001", "< 0.001", "0.050", "1.000"]
