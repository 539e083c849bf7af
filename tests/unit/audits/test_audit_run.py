from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import yaml

from forgery_det.audits import AUDITS, audit
from forgery_det.cli.datasets import audit as cli_audit
from forgery_det.core.errors import ConfigError, ManifestError, UnknownNameError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import Progress
from forgery_det.core.shipped import shipped_config
from synth.planted import Planter


def test_a_clean_dataset_passes_all_audits(planter: Planter) -> None:
    report = audit(planter.build(), n_replicates=100)
    assert report.passed
    assert {finding.name for finding in report.findings} == set(AUDITS.names())
    assert report.counts()["fail"] == report.counts()["warn"] == 0


def test_the_report_is_written_and_traceable(planter: Planter, tmp_path: Path) -> None:
    dataset = planter.build()
    out = tmp_path / "elsewhere"
    report = audit(dataset, out=out, n_replicates=50, seed=7, only=["class_presence", "file_facts"])
    written = json.loads((out / "audit.json").read_text())
    assert not (dataset / "audit.json").exists()
    assert written["passed"] is True
    assert written["manifest_hash"] == Manifest.load(dataset).digest() == report.manifest_hash
    assert written["options"]["seed"] == 7
    assert written["versions"]["scikit-learn"]
    assert [finding["name"] for finding in written["findings"]] == [finding.name for finding in report.findings]
    assert written["findings"][0]["waived"] == ""


@pytest.mark.slow
def test_the_same_dataset_gives_the_same_bytes(planter: Planter, tmp_path: Path) -> None:
    dataset = planter.build()
    for folder in ("a", "b"):
        audit(dataset, out=tmp_path / folder, n_replicates=50)
    assert (tmp_path / "a/audit.json").read_bytes() == (tmp_path / "b/audit.json").read_bytes()


@pytest.mark.slow
def test_a_waiver_changes_the_verdict_and_hides_nothing(planter: Planter) -> None:
    for entry in planter.of_label(1):
        entry["quality"] = 70
    dataset = planter.build()
    only = ["file_facts", "class_presence"]
    assert not audit(dataset, n_replicates=50, only=only).passed
    reason = "qualities are equalised by the detector's own re-encoding"
    waivers = {"file_facts": reason, "class_presence": "old"}
    report = audit(dataset, n_replicates=50, only=only, waivers=waivers)
    assert report.passed
    failed = [finding for finding in report.findings if finding.level == "fail"]
    assert failed
    assert {finding.waived for finding in failed} == {reason}
    assert report.unused_waivers == ("class_presence",)
    assert report.to_json()["waivers"] == waivers


def test_progress_is_told(planter: Planter) -> None:
    seen: list[Progress] = []
    audit(planter.build(), only=["missing_files", "class_presence"], progress=seen.append)
    assert seen == [Progress("audit class_presence", 1, 2, "audits"), Progress("audit missing_files", 2, 2, "audits")]


def test_wrong_input_is_told(planter: Planter, tmp_path: Path) -> None:
    dataset = planter.build()
    with pytest.raises(UnknownNameError, match="Unknown audit 'file_fact': did you mean 'file_facts'"):
        audit(dataset, only=["file_fact"])
    with pytest.raises(UnknownNameError, match="Unknown audit 'filefacts' in the waivers: did you mean 'file_facts'"):
        audit(dataset, waivers={"filefacts": "because"})
    with pytest.raises(ConfigError, match="Expected a reason for the waiver of 'file_facts', got none"):
        audit(dataset, waivers={"file_facts": " "})
    with pytest.raises(ConfigError, match=r"Expected `auroc_limit` in \[0.5, 1\), got 0.4 \(audit\)"):
        audit(dataset, auroc_limit=0.4)
    with pytest.raises(ConfigError, match=r"Expected `max_images` of at least 1, got 0 \(audit\)"):
        audit(dataset, max_images=0)
    empty = tmp_path / "empty"
    empty.mkdir()
    Manifest.from_rows([], empty).write()
    with pytest.raises(ManifestError, match="Expected a dataset with images, got an empty manifest"):
        audit(empty)


def test_the_shipped_configuration_holds_the_defaults_of_the_audit() -> None:
    shipped = yaml.safe_load(shipped_config("audit/default.yaml").read_text(encoding="utf-8"))
    defaults = {name: one.default for name, one in inspect.signature(audit).parameters.items() if name in shipped}
    assert shipped == defaults
    command = {name: one.default for name, one in inspect.signature(cli_audit).parameters.items() if name in shipped}
    assert shipped == command
    left_out = set(inspect.signature(cli_audit).parameters) - set(shipped)
    assert left_out == {"dataset", "out"}
