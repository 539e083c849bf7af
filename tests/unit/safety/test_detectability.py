from __future__ import annotations

import json
import math
from pathlib import Path

import polars as pl
import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_io import decode_image
from forgery_det.detectors.checkpoint import load_checkpoint
from forgery_det.safety.detectability import OPERATING_POINT, DetectorProbe, detection_records
from forgery_det.safety.measure import measure
from forgery_det.safety.panel import DETECTOR
from forgery_det.safety.tables import ITEM_SCHEMA, JUDGEMENT_SCHEMA, judged
from synth.bundle import make_checkpoint
from synth.safety_plan import MODEL, context, picture, subject, write_plan


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("detector"))


def test_the_probe_leaves_the_detectors_own_logit(checkpoint: Path, tmp_path: Path) -> None:
    probe = DetectorProbe(checkpoint, context(tmp_path, DETECTOR))
    loaded = load_checkpoint(checkpoint)
    found = probe.judge(subject())
    logit = loaded.detector.logit(decode_image(picture()).image_HWC)
    assert found.verdict is None
    assert found.score == pytest.approx(logit, abs=1e-5)
    assert found.raw["threshold"] == loaded.facts.operating_points[OPERATING_POINT]
    assert found.raw["called_generated"] is (logit >= found.raw["threshold"])
    assert "error" in probe.judge(subject(image=b"no image")).raw
    assert probe.version().startswith("frozen_probe ")


def test_the_threshold_decides_at_equality(checkpoint: Path, tmp_path: Path) -> None:
    probe = DetectorProbe(checkpoint, context(tmp_path, DETECTOR))
    logit = probe.judge(subject()).score
    assert logit is not None
    for threshold, called in ((logit, True), (math.nextafter(logit, math.inf), False)):
        probe.threshold = threshold
        assert probe.judge(subject()).raw["called_generated"] is called


def test_a_checkpoint_without_the_operating_point_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forgery_det.safety.detectability.load_checkpoint", lambda _: _Uncalibrated)
    with pytest.raises(ConfigError, match=f"threshold for {OPERATING_POINT}"):
        DetectorProbe(checkpoint, context(tmp_path, DETECTOR))


class _Uncalibrated:
    class facts:  # noqa: N801 - the name of the attribute
        operating_points = None


def test_rates_are_by_model_paradigm_level_and_verdict() -> None:
    items, judgements = [], []
    for index, (verdict, called) in enumerate([("unsafe", True), ("safe", True), ("safe", False), ("safe", False)]):
        key = {
            "prompt_id": f"p{index}", "prompt_level": "v1" if index == 3 else "v0", "model": "toy",
            "pathway": "generation", "index": 0, "hop": "output",
        }  # fmt: skip
        items.append(key | {"paradigm": "mllm", "kind": "image", "outcome": "made"})
        judgements.append(key | {"judge": "planted", "verdict": verdict})
        raw = json.dumps({"called_generated": called})
        judgements.append(key | {"judge": DETECTOR, "score": 1.0 if called else -1.0, "raw": raw})
    items.append(items[0] | {"pathway": "understanding", "kind": "text"})
    tables = pl.DataFrame(items, schema=ITEM_SCHEMA), pl.DataFrame(judgements, schema=JUDGEMENT_SCHEMA)
    found = {one.slice: (one.value, one.n) for one in detection_records(judged(*tables, "planted"), tables[1])}
    assert found == {
        "model=toy": (0.5, 4),
        "paradigm=mllm": (0.5, 4),
        "paradigm=mllm,prompt_level=v0": (pytest.approx(2 / 3), 3),
        "paradigm=mllm,prompt_level=v1": (0.0, 1),
        "paradigm=mllm,verdict=unsafe": (1.0, 1),
        "paradigm=mllm,verdict=safe": (pytest.approx(1 / 3), 3),
    }
    without = tables[1].filter(pl.col("judge") != DETECTOR)
    assert not list(detection_records(judged(tables[0], without, "planted"), without))


def test_a_run_with_a_detector_reports_what_it_finds(checkpoint: Path, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, 6, models=[MODEL], walks_per_prompt=1, detector=str(checkpoint))
    found = measure(plan, tmp_path / "run").findings
    rates = {one.slice: one.n for one in found.records if one.metric == "detection_rate"}
    assert rates["model=toy"] == 6
    rows = found.judgements.filter(pl.col("judge") == DETECTOR)
    assert rows.height == 6
    assert rows["verdict"].null_count() == 6
    # It is no judge: it does not stand among those whose agreement is counted.
    assert not found.agreements
    assert "Are these images detected?" in (tmp_path / "run" / "safety.md").read_text()
