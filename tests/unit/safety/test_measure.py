from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.tables import RESULTS_NAME
from forgery_det.recipes.work import WORK_NAME
from forgery_det.safety.journal import JOURNAL_NAME
from forgery_det.safety.measure import MEDIA_NAME, SafetySummary, measure
from forgery_det.safety.models.simulated import SimulatedModel, SimulatedParameters
from forgery_det.safety.registry import MODELS
from forgery_det.safety.tables import ITEMS_NAME, JUDGEMENTS_NAME
from forgery_det.safety.types import Answer
from forgery_det.safety.vault import KEY_VARIABLE, new_key
from synth.safety_plan import JUDGE, MODEL, write_plan

ALL = ["generation", "understanding", "understanding_generation", "generation_understanding"]
TOY = MODEL | {"unsafe_image": 0.4, "unsafe_text": 0.3, "carried": 0.9, "refused": 0.1}


@dataclass(frozen=True, slots=True)
class FlakyParameters(SimulatedParameters):
    """`fails_at`: the number of the call that fails, counted over all runs of a test."""

    fails_at: int = -1


class Flaky(SimulatedModel):
    """A simulated model that breaks on demand; it takes its time in an order of its own when asked by several."""

    Parameters = FlakyParameters
    breaks_at = -1
    calls = 0
    at_once = 0
    most_at_once = 0
    threads = 1
    _lock = threading.Lock()

    @property
    def max_concurrency(self) -> int:  # type: ignore[override]
        return Flaky.threads

    def version(self) -> str:
        return "flaky-1"

    def generate(self, text: str, images: Sequence[bytes] = (), *, seed: int) -> Answer:
        with Flaky._lock:
            Flaky.calls += 1
            number = Flaky.calls
            Flaky.at_once += 1
            Flaky.most_at_once = max(Flaky.most_at_once, Flaky.at_once)
        if Flaky.threads > 1:
            time.sleep(0.001 * (number % 4))
        with Flaky._lock:
            Flaky.at_once -= 1
        if number == Flaky.breaks_at:
            raise SourceError("Expected the model to answer, got silence.")
        if number == self.parameters.fails_at:
            return Answer("failed", "image", detail="out of memory", provenance={"cost_usd": 0.5})
        made = super().generate(text, images, seed=seed)
        return Answer(made.outcome, made.kind, made.text, made.image, made.detail, {"cost_usd": 0.5})


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> type[Flaky]:
    monkeypatch.setitem(MODELS._targets, "flaky", f"{__name__}:Flaky")
    Flaky.calls = Flaky.at_once = Flaky.most_at_once = 0
    Flaky.breaks_at = -1
    Flaky.threads = 1
    return Flaky


def tables(run: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    return tuple(pl.read_parquet(run / name) for name in (ITEMS_NAME, JUDGEMENTS_NAME, RESULTS_NAME))


def assert_same(one: Path, other: Path) -> None:
    for a, b in zip(tables(one), tables(other), strict=True):
        assert_frame_equal(a, b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SafetySummary]:
    """A run of all pathways, refusals included, and its plan beside it."""
    folder = tmp_path_factory.mktemp("whole")
    plan = write_plan(folder, 6, models=[TOY], pathways=ALL, judges=[JUDGE, JUDGE | {"name": "b", "misses": 0.5}])
    return plan, measure(plan, folder / "run")


def test_every_hop_of_every_walk_has_a_row_and_its_verdicts(whole: tuple[Path, SafetySummary]) -> None:
    _, summary = whole
    items, judgements, results = tables(summary.run)
    assert (summary.n_walks, summary.n_done, summary.n_failed, summary.stopped) == (48, 48, 0, "")
    assert items.filter(pl.col("hop") == "input").height == 48
    assert set(items["pathway"]) == set(ALL)
    assert set(items["outcome"]) == {"made", "refused"}
    # Each answer that was made has one verdict of each judge, and nothing else has.
    made = items.filter(pl.col("outcome") == "made")
    assert judgements.height == 2 * made.height
    assert judgements.filter(pl.col("verdict") == "unsafe").height > 0
    # Agreement is counted on answers; inputs are the benchmark's.
    ((_, _, agreed),) = summary.findings.agreements
    assert agreed.n == made.filter(pl.col("hop") != "input").height
    # A refused hop ends its walk: nothing follows.
    refused = items.filter(pl.col("outcome") == "refused")
    assert refused["sha256"].is_null().all()
    assert {"unsafe_rate", "refused_rate", "amplification_difference", "kappa"} <= set(results["metric"])
    assert (summary.run / "safety.html").is_file()
    config = json.loads((summary.run / "run.json").read_text())
    assert config["command"] == "safety"


def test_unsafe_images_are_not_in_the_folder(whole: tuple[Path, SafetySummary]) -> None:
    _, summary = whole
    items, judgements, _ = tables(summary.run)
    unsafe = judgements.filter(pl.col("verdict") == "unsafe").join(
        items.filter(pl.col("kind") == "image"), on=["prompt_id", "pathway", "index", "hop"]
    )
    assert unsafe.height > 0
    kept = {path.name.split(".")[0] for path in (summary.run / MEDIA_NAME).iterdir()}
    assert kept
    assert not kept & set(unsafe["sha256"])
    assert (unsafe["stored"] == "").all()


def test_a_second_run_asks_nothing(whole: tuple[Path, SafetySummary], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, summary = whole
    before = (summary.run / "safety.html").read_bytes()
    monkeypatch.setattr(SimulatedModel, "generate", None)
    monkeypatch.setattr(SimulatedModel, "understand", None)
    assert measure(plan, summary.run).n_done == 48
    assert (summary.run / "safety.html").read_bytes() == before


@pytest.mark.parametrize("breaks_at", [pytest.param(1, marks=pytest.mark.slow), 17])
def test_a_run_that_broke_off_ends_as_if_it_had_not(tmp_path: Path, flaky: type[Flaky], breaks_at: int) -> None:
    given = {"models": [TOY | {"kind": "flaky"}], "pathways": ALL[::2]}
    smooth = measure(write_plan(tmp_path / "smooth", 6, **given), tmp_path / "smooth" / "run")
    n_smooth, flaky.calls = flaky.calls, 0
    plan = write_plan(tmp_path / "rough", 6, **given)
    flaky.breaks_at = breaks_at
    with pytest.raises(SourceError, match="silence"):
        measure(plan, tmp_path / "rough" / "run")
    # The process died while it wrote: half a line is left.
    journal = tmp_path / "rough" / "run" / WORK_NAME / JOURNAL_NAME
    journal.write_bytes(journal.read_bytes() + b'{"digest":"00","items":[{"hop"')
    measure(plan, tmp_path / "rough" / "run")
    assert flaky.calls == n_smooth + 1
    assert_same(smooth.run, tmp_path / "rough" / "run")


def test_several_at_once_give_the_same_tables(tmp_path: Path, flaky: type[Flaky]) -> None:
    plan = write_plan(tmp_path, 8, models=[TOY | {"kind": "flaky"}], pathways=ALL[::2])
    one = measure(plan, tmp_path / "one")
    flaky.threads = 4
    four = measure(plan, tmp_path / "four")
    assert flaky.most_at_once > 1
    assert one.findings.items.height > 32
    assert_same(one.run, four.run)


def test_a_failed_walk_is_shown_and_tried_again(tmp_path: Path, flaky: type[Flaky]) -> None:
    model = MODEL | {"kind": "flaky", "fails_at": 3}
    plan = write_plan(tmp_path, 6, models=[model])
    first = measure(plan, tmp_path / "run")
    assert (first.n_done, first.n_failed) == (11, 1)
    failed = first.findings.items.filter(pl.col("outcome") == "failed")
    assert (failed["detail"].to_list(), failed["hop"].to_list()) == (["out of memory"], ["output"])
    calls = flaky.calls
    second = measure(plan, tmp_path / "run")
    assert (second.n_done, second.n_failed, flaky.calls) == (12, 0, calls + 1)
    assert set(second.findings.items["outcome"]) == {"made"}


def test_a_budget_stops_the_run_and_the_next_goes_on(tmp_path: Path, flaky: type[Flaky]) -> None:
    models = [MODEL | {"kind": "flaky"}]
    first = measure(write_plan(tmp_path, 6, models=models, budget={"requests": 5}), tmp_path / "run")
    assert (first.n_done, flaky.calls) == (5, 5)
    assert "budget of 5 requests is used up" in first.stopped
    assert "not finished" in (tmp_path / "run" / "safety.md").read_text()
    # What earlier runs spent counts.
    again = measure(write_plan(tmp_path, 6, models=models, budget={"usd": 2.5}), tmp_path / "run")
    assert flaky.calls == 5
    assert "budget of 2.5 USD is used up (2.50 spent)" in again.stopped
    last = measure(write_plan(tmp_path, 6, models=models), tmp_path / "run")
    assert (last.n_done, last.stopped, flaky.calls) == (12, "", 12)
    with pytest.raises(ConfigError, match="the budget allows no request"):
        measure(write_plan(tmp_path, 6, models=models, budget={"requests": 0}), tmp_path / "other")


def test_a_judge_added_later_sees_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, new_key())
    late = [JUDGE, JUDGE | {"name": "late", "false_alarms": 0.5}]
    both = measure(write_plan(tmp_path / "both", 6, judges=late, store="encrypted"), tmp_path / "both" / "run")
    plan = write_plan(tmp_path / "late", 6, store="encrypted")
    first = measure(plan, tmp_path / "late" / "run")
    plain = {path.name for path in (first.run / MEDIA_NAME).glob("*.image")}
    write_plan(tmp_path / "late", 6, judges=late, store="encrypted")
    with monkeypatch.context() as no_model:
        no_model.setattr(SimulatedModel, "generate", None)
        measure(plan, first.run)
    assert_same(both.run, first.run)
    # What the late judge calls unsafe is not left as it was.
    left = {path.name for path in (first.run / MEDIA_NAME).glob("*.image")}
    assert left < plain


def test_images_that_were_dropped_cannot_be_judged_again_except_by_labels(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, 6)
    first = measure(plan, tmp_path / "run")
    write_plan(tmp_path, 6, judges=[JUDGE, JUDGE | {"name": "late"}])
    with pytest.raises(ConfigError, match="all judges from the start, got 'late'"):
        measure(plan, tmp_path / "run")
    images = first.findings.items.filter(pl.col("kind") == "image")
    images.select("sha256", pl.lit("safe").alias("verdict")).unique().write_csv(tmp_path / "labels.csv")
    people = {"name": "people", "kind": "csv", "path": "labels.csv"}
    write_plan(tmp_path, 6, judges=[JUDGE, people])
    found = measure(plan, tmp_path / "run").findings.judgements.filter(pl.col("judge") == "people")
    assert found.filter(pl.col("hop") == "output")["verdict"].to_list() == ["safe"] * 12
    assert found.filter(pl.col("hop") == "input")["verdict"].null_count() == 12
    # Labels that change are read anew.
    images.select("sha256", pl.lit("unsafe").alias("verdict")).unique().write_csv(tmp_path / "labels.csv")
    found = measure(plan, tmp_path / "run").findings.judgements.filter(pl.col("judge") == "people")
    assert found.filter(pl.col("hop") == "output")["verdict"].to_list() == ["unsafe"] * 12
    assert not list((tmp_path / "run" / MEDIA_NAME).iterdir())


def test_hashed_prompts_are_in_no_table_and_no_report(tmp_path: Path) -> None:
    run = measure(write_plan(tmp_path, 6, hash_prompts=True, pathways=["understanding"]), tmp_path / "run").run
    items, _, _ = tables(run)
    assert items["text"].drop_nulls().str.starts_with("sha256:").all()
    assert items["text"].n_unique() > 6
    for name in (ITEMS_NAME, JUDGEMENTS_NAME, RESULTS_NAME, "safety.html", "safety.md", "run.json"):
        assert b"lighthouse" not in (run / name).read_bytes(), name


def test_models_that_can_walk_nothing_are_refused(tmp_path: Path) -> None:
    deaf = MODEL | {"understands": False}
    with pytest.raises(ConfigError, match="can walk one of understanding, got 'toy'"):
        measure(write_plan(tmp_path, 6, models=[deaf], pathways=["understanding"]), tmp_path / "run")
    run = measure(write_plan(tmp_path, 6, models=[deaf], pathways=ALL), tmp_path / "run")
    assert set(run.findings.items["pathway"]) == {"generation"}


_KILLED = """
import os, sys
from forgery_det.safety.measure import measure
from forgery_det.safety.models.simulated import SimulatedModel

left = int(sys.argv[3])
generate = SimulatedModel.generate

def dies(self, *args, **kwargs):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return generate(self, *args, **kwargs)

SimulatedModel.generate = dies
measure(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing_but_the_walk_in_flight(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, 6, models=[TOY], pathways=ALL)
    smooth = measure(plan, tmp_path / "smooth")
    for _ in range(5):
        ended = subprocess.run(
            [sys.executable, "-c", _KILLED, str(plan), str(tmp_path / "rough"), "13"], check=False, timeout=120
        )
        if ended.returncode == 0:
            break
        assert ended.returncode == -9
    else:
        pytest.fail("36 drawings, 13 a process: the third ends")
    assert_same(smooth.run, tmp_path / "rough")
