from __future__ import annotations

import json
import shutil
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from forgery_det.core.errors import ConfigError, ManifestError, UnknownNameError
from forgery_det.core.image_io import decode_file
from forgery_det.core.manifest import Manifest
from forgery_det.core.tables import PREDICTION_SCHEMA, RESULT_SCHEMA, read_table
from forgery_det.detectors.checkpoint import LoadedDetector, save_checkpoint
from forgery_det.detectors.factory import create_detector
from forgery_det.evaluation import evaluate, score

OPTIONS = {"batch_size": 8, "n_replicates": 50, "gallery_size": 4, "device": "cpu", "protocols": {}}
EVALUATE_MODULE = "forgery_det.evaluation.evaluate"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best.ckpt"
    path.write_bytes(b"stands for the weights")
    return path


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    """Let `load_checkpoint` return a given detector, and count how many images it saw."""

    def use(loaded: LoadedDetector) -> LoadedDetector:
        monkeypatch.setattr(sys.modules[EVALUATE_MODULE], "load_checkpoint", lambda _: loaded)
        return loaded

    return use


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the page out, which takes most of the time, where a test looks at the tables alone."""
    monkeypatch.setattr(sys.modules[EVALUATE_MODULE], "write_report", lambda *_: ())


def results(run: Path) -> dict[tuple[str, str], dict]:
    return {(r["metric"], r["slice"]): r for r in read_table(run / "results.parquet", RESULT_SCHEMA).to_dicts()}


def facts(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())["facts"]


def test_a_run_folder_is_complete(
    manifest: Manifest, judged: pl.DataFrame, checkpoint: Path, use, make_loaded, tmp_path: Path, capsys
) -> None:
    use(make_loaded())
    run = evaluate(checkpoint, manifest.root, tmp_path / "run", **OPTIONS)
    assert run == tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    assert names == {"predictions.parquet", "results.parquet", "run.json", "report.html", "report.md", "figures"}
    assert capsys.readouterr().out == ""

    predictions = read_table(run / "predictions.parquet", PREDICTION_SCHEMA)
    val_and_test = manifest.frame.filter(pl.col("split") != "train")
    assert predictions["image_id"].to_list() == val_and_test["image_id"].to_list()

    expected = roc_auc_score(judged["label"].to_numpy(), judged["logit"].to_numpy())
    assert results(run)["auroc", "overall"]["value"] == pytest.approx(expected, abs=1e-12)

    html = (run / "report.html").read_text()
    worst = judged.filter(pl.col("label") == 0).sort("logit")["image_id"][-1]
    missed = judged.filter(pl.col("label") == 1).sort("logit")["image_id"][0]
    assert worst[:10] in html
    assert missed[:10] in html
    assert html.count("data:image/webp;base64,") == 2 * OPTIONS["gallery_size"]

    record = json.loads((run / "run.json").read_text())
    assert record["command"] == "evaluate"
    assert record["manifest_hash"] == manifest.digest()
    assert record["config"]["split"] == "test"
    assert record["config"]["n_replicates"] == 50
    assert set(record["durations_s"]) == {"load", "score", "metrics", "report"}
    assert record["config"]["protocols"] == {}
    assert record["facts"]["splits_scored"] == ["test", "val"]
    assert record["facts"]["seen_generators"] == ["flux-1", "sd-1"]
    assert record["facts"]["seen_generators_from"] == "the dataset's train and val splits"
    assert record["facts"]["n_bad_files"] == 0


def test_protocols_are_in_the_results_the_report_and_the_record(
    manifest: Manifest, judged: pl.DataFrame, checkpoint: Path, use, make_loaded, tmp_path: Path
) -> None:
    use(make_loaded())
    declared = {"held_out_generator": None, "temporal": {"cutoff": date(2025, 1, 31)}, "false_alarm": {}}
    run = evaluate(checkpoint, manifest.root, tmp_path / "run", **(OPTIONS | {"protocols": declared}))
    held_out = judged.filter((pl.col("label") == 0) | ~pl.col("generator").is_in(["sd-1", "flux-1"]))
    expected = roc_auc_score(held_out["label"].to_numpy(), held_out["logit"].to_numpy())
    assert results(run)["auroc", "level=generator,exposure=held_out"]["value"] == pytest.approx(expected, abs=1e-12)
    assert results(run)["fpr@balanced", "source=city"]["n"] == 12
    record = json.loads((run / "run.json").read_text())
    assert record["config"]["protocols"] == {
        "held_out_generator": {}, "temporal": {"cutoff": "2025-01-31"}, "false_alarm": {},
    }  # fmt: skip
    assert {f"protocol.{name}" for name in declared} <= set(record["durations_s"])
    html = (run / "report.html").read_text()
    anchors = [html.index(f'<section class="protocol" id="protocol-{name}">') for name in declared]
    assert anchors == sorted(anchors)
    assert all(f'href="#protocol-{name}"' in html for name in declared)
    # Nothing in this dataset has a release date, and the report says whose.
    assert "Without a date, in a row of their own: flux-1, janus-1, rare-1, sd-1." in html
    assert "## Held" in (run / "report.md").read_text()


@pytest.mark.usefixtures("without_report")
def test_thresholds_come_from_val_and_say_so(
    manifest: Manifest, scored: pl.DataFrame, checkpoint: Path, use, make_loaded, tmp_path: Path
) -> None:
    use(make_loaded())
    run = evaluate(checkpoint, manifest.root, tmp_path / "run", **OPTIONS)
    threshold = results(run)["threshold@fpr_5pct", "overall"]
    val = scored.filter(pl.col("split") == "val")
    real = val.filter(pl.col("label") == 0)["logit"]
    # 28 real images: one may pass
    assert (real >= threshold["value"] + 1e-4).sum() <= 1
    assert any(abs(threshold["value"] - logit) < 1e-4 for logit in val["logit"])
    assert "val split of" in facts(run)["thresholds"]["source"]
    assert "only 28 real images" in results(run)["threshold@fpr_1pct", "overall"]["note"]


@pytest.mark.usefixtures("without_report")
def test_operating_points_of_the_checkpoint_are_used_and_val_is_not_scored(
    manifest: Manifest, checkpoint: Path, use, make_loaded, tmp_path: Path
) -> None:
    points = {"fpr_1pct": 1.5, "fpr_5pct": 1.0, "balanced": 0.5}
    use(make_loaded(temperature=0.5, operating_points=points, training={"generators": ["sd-1"]}))
    run = evaluate(checkpoint, manifest.root, tmp_path / "run", **OPTIONS)
    assert facts(run)["splits_scored"] == ["test"]
    assert facts(run)["thresholds"]["value"] == points
    assert facts(run)["seen_generators"] == ["sd-1"]
    assert facts(run)["temperature"] == 0.5
    assert results(run)["threshold@balanced", "overall"]["value"] == 0.5


@pytest.mark.slow
def test_a_dataset_without_val_has_no_thresholded_numbers(
    manifest: Manifest, checkpoint: Path, use, make_loaded, tmp_path: Path
) -> None:
    root = tmp_path / "no_val"
    shutil.copytree(manifest.root, root)
    Manifest(manifest.frame.filter(pl.col("split") == "test"), root).write()
    use(make_loaded())
    run = evaluate(checkpoint, root, tmp_path / "run", **OPTIONS)
    tpr = results(run)["tpr@fpr_1pct", "overall"]
    assert tpr["value"] is None
    assert "neither the checkpoint nor the dataset has a val split" in tpr["note"]
    assert facts(run)["seen_generators"] is None
    html = (run / "report.html").read_text()
    assert "neither the checkpoint nor the dataset has a val split" in html
    assert "none can be called held out" in html


@pytest.mark.usefixtures("without_report")
def test_a_finished_run_is_not_scored_again(
    manifest: Manifest, checkpoint: Path, use, make_loaded, tmp_path: Path
) -> None:
    use(make_loaded())
    run = evaluate(checkpoint, manifest.root, tmp_path / "run", **OPTIONS)
    before = {name: (run / name).read_bytes() for name in ("predictions.parquet", "results.parquet")}
    again = use(make_loaded())
    evaluate(checkpoint, manifest.root, run, **OPTIONS)
    assert again.detector.n_seen == 0
    assert {name: (run / name).read_bytes() for name in before} == before


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_another_checkpoint_in_the_same_folder_is_scored(
    manifest: Manifest, checkpoint: Path, use, make_loaded, tmp_path: Path
) -> None:
    use(make_loaded())
    run = evaluate(checkpoint, manifest.root, tmp_path / "run", **OPTIONS)
    checkpoint.write_bytes(b"other weights")
    again = use(make_loaded())
    evaluate(checkpoint, manifest.root, run, **OPTIONS)
    assert again.detector.n_seen > 0


@pytest.mark.usefixtures("without_report")
def test_killed_and_run_again_gives_the_same_files(
    manifest: Manifest, checkpoint: Path, use, make_loaded, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(score, "BATCHES_PER_PART", 2)
    whole_loaded = use(make_loaded())
    whole = evaluate(checkpoint, manifest.root, tmp_path / "whole", **OPTIONS)

    def stop(progress) -> None:
        if progress.done >= 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(checkpoint, manifest.root, tmp_path / "run", **OPTIONS, progress=stop)
    assert not (tmp_path / "run" / "run.json").exists()
    resumed = use(make_loaded())
    run = evaluate(checkpoint, manifest.root, tmp_path / "run", **OPTIONS)
    assert 0 < resumed.detector.n_seen < whole_loaded.detector.n_seen
    for name in ("predictions.parquet", "results.parquet"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert not (run / "parts").exists()


@pytest.mark.slow
def test_bad_files_are_in_the_record_and_in_the_report(
    manifest: Manifest, checkpoint: Path, use, make_loaded, tmp_path: Path
) -> None:
    root = tmp_path / "broken"
    shutil.copytree(manifest.root, root)
    victim = manifest.frame.filter(pl.col("split") == "test").row(3, named=True)
    (root / victim["path"]).write_bytes(b"Dear reader")
    use(make_loaded())
    run = evaluate(checkpoint, root, tmp_path / "run", **OPTIONS)
    assert facts(run)["n_bad_files"] == 1
    assert facts(run)["bad_files"][0]["path"] == victim["path"]
    assert facts(run)["bad_files"][0]["reason"].startswith("not_an_image")
    for name in ("report.html", "report.md"):
        text = (run / name).read_text().replace("\\", "")
        assert victim["path"] in text, name
        assert "1 of 65 files could not be scored" in text, name


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_bad_files_are_remembered_when_nothing_is_scored_again(
    manifest: Manifest, checkpoint: Path, use, make_loaded, tmp_path: Path
) -> None:
    root = tmp_path / "broken"
    shutil.copytree(manifest.root, root)
    (root / manifest.frame.filter(pl.col("split") == "val")["path"][0]).unlink()
    use(make_loaded())
    run = evaluate(checkpoint, root, tmp_path / "run", **OPTIONS)
    first = facts(run)["bad_files"]
    again = use(make_loaded())
    evaluate(checkpoint, root, run, **OPTIONS)
    assert again.detector.n_seen == 0
    assert facts(run)["bad_files"] == first
    assert first[0]["reason"].startswith("unreadable")


def test_the_audit_stands_beside_the_detector(
    manifest: Manifest, checkpoint: Path, use, make_loaded, tmp_path: Path
) -> None:
    finding = {
        "n": 127,
        "ci_low": 0.7,
        "ci_high": 0.9,
        "limit": 0.6,
        "detail": "Posters & landscapes.",
        "level": "warn",
    }
    findings = [
        finding | {"name": "thumbnail_content", "slice": "overall", "value": 0.8123},
        finding | {"name": "thumbnail_content", "slice": "generator=sd-1", "value": 0.7654},
        finding | {"name": "file_facts", "slice": "overall", "value": 0.5, "level": "pass"},
    ]
    (tmp_path / "audit.json").write_text(json.dumps({"findings": findings}))
    use(make_loaded())
    run = evaluate(checkpoint, manifest.root, tmp_path / "run", **OPTIONS, audit=tmp_path)
    html = (run / "report.html").read_text()
    panel = html[html.index('id="doubt"') : html.index('id="figures"')]
    assert "thumbnail only" in panel
    assert "0.812" in panel
    row = html[html.index('<th scope="row">sd-1') :]
    assert "0.765" in row[: row.index("</tr>")]
    assert "Posters &amp; landscapes." in html
    assert ("audit@thumbnail_content", "generator=sd-1") not in results(run)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"split": "tets"}, ConfigError, "Unknown split 'tets': did you mean 'test'"),
        ({"prompt_word_bins": [60, 20]}, ConfigError, "Expected `prompt_word_bins` as ascending"),
        ({"batch_size": 0}, ConfigError, "Expected `batch_size` of at least 1, got 0"),
        ({"n_replicates": 1}, ConfigError, "n_replicates"),
        ({"protocols": {"temporl": {}}}, UnknownNameError, "Unknown protocol 'temporl': did you mean 'temporal'"),
        ({"protocols": {"temporal": {"perio": 1}}}, ConfigError, "Unknown option 'perio' of protocol 'temporal'"),
        ({"audit": Path("/nowhere")}, ConfigError, "Expected an audit file, got none at /nowhere"),
    ],
)
def test_bad_options_are_refused(
    manifest: Manifest, checkpoint: Path, use, make_loaded, tmp_path: Path, change: dict, error: type, text: str
) -> None:
    use(make_loaded())
    with pytest.raises(error, match=text):
        evaluate(checkpoint, manifest.root, tmp_path / "run", **(OPTIONS | change))


def test_no_dataset_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="Expected a dataset folder"):
        evaluate(checkpoint, tmp_path / "nothing", tmp_path / "run", **OPTIONS)


def test_a_foreign_run_json_is_not_overwritten(
    manifest: Manifest, checkpoint: Path, use, make_loaded, tmp_path: Path
) -> None:
    use(make_loaded())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="Expected a run record, got something else"):
        evaluate(checkpoint, manifest.root, tmp_path / "run", **OPTIONS)
    assert (tmp_path / "run" / "run.json").read_text() == "[1, 2]"


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_a_real_checkpoint_goes_through(manifest: Manifest, tmp_path: Path) -> None:
    detector = create_detector("frozen_probe", backbone="test_resnet", backbone_weights=None, image_size_px=64)
    path = tmp_path / "probe.ckpt"
    save_checkpoint(
        path, detector, temperature=2.0, operating_points={"fpr_1pct": 1.0, "fpr_5pct": 0.5, "balanced": 0.0}
    )
    run = evaluate(path, manifest.root, tmp_path / "run", **OPTIONS)
    first = manifest.frame.filter(pl.col("split") == "test").row(0, named=True)
    logit = detector.logit(decode_file(manifest.image_file(first["path"])).image_HWC)
    predictions = read_table(run / "predictions.parquet", PREDICTION_SCHEMA)
    assert predictions["logit"][0] == pytest.approx(logit, abs=1e-4)
