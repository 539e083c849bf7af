"""`kill -9` at any moment of generating, then the same command: the same dataset, and no finished job done again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forgery_det.recipes.build import collect
from forgery_det.recipes.generate import store as store_module
from forgery_det.recipes.generate.store import JobStore
from synth.generating import begun, prompt_recipe, toy_generator
from synth.images import folder_sources, tree, write_images

_CHILD = """
import sys
from pathlib import Path
from forgery_det.recipes.build import collect
print("started", flush=True)
collect(sys.argv[1], Path(sys.argv[2]), cache=Path(sys.argv[3]))
"""
_PROMPTS = [f"{'refuse ' if index % 7 == 3 else ''}fox number {index}" for index in range(12)]


def recipe_in(folder: Path, prompts: list[str], delay_s: float, photos: int) -> tuple[Path, Path]:
    """A recipe of photographs, images made of prompts, and images made of the photographs; and the toy's log."""
    log = folder / "log"
    write_images(folder / "images" / "real", photos, generated=False)
    toy = toy_generator(log, parameters={"delay_s": delay_s}, in_flight=1)
    drawn = {"id": "drawn", "prompts": "ideas", "images_per_prompt": 1 + (delay_s > 0), "generator": toy}
    reworked = {"id": "reworked", "images": "photos", "generator": toy, "mask": {"rule": "blob"}, "prompt": "a fox"}
    return prompt_recipe(folder / "recipe", prompts, folder_sources(folder / "images")[0], drawn, reworked), log


class Killed(BaseException):
    """Stands in for a kill within one process."""


@pytest.mark.parametrize("write", [pytest.param("write_bytes", marks=pytest.mark.slow), "write_json"])
def test_a_stop_at_any_write_loses_the_job_in_flight_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    recipe, log = recipe_in(tmp_path, _PROMPTS[:2], 0.0, photos=2)
    collect(recipe, tmp_path / "whole", cache=tmp_path / "cache_whole")
    jobs = len(begun(log))
    log.unlink()
    original, out = getattr(store_module, write), tmp_path / "killed"
    stops = 0
    for stop_at in (1, 3, 2):
        calls = Counter[str]()

        def interrupted(path: Path, value: Any, calls: Counter[str] = calls, stop_at: int = stop_at) -> None:
            calls["n"] += 1
            if calls["n"] == stop_at:
                raise Killed
            original(path, value)

        monkeypatch.setattr(store_module, write, interrupted)
        try:
            collect(recipe, out, cache=tmp_path / "cache")
        except Killed:
            stops += 1
    monkeypatch.setattr(store_module, write, original)
    collect(recipe, out, cache=tmp_path / "cache")
    assert stops >= 2
    assert tree(out, without=()) == tree(tmp_path / "whole", without=())
    assert len(begun(log)) <= jobs + stops


def _start(recipe: Path, out: Path, cache: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _CHILD, str(recipe), str(out), str(cache)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    return process


@pytest.mark.slow
def test_ten_kills_end_in_the_same_dataset(tmp_path: Path) -> None:
    recipe, log = recipe_in(tmp_path, _PROMPTS, 0.05, photos=6)
    collect(recipe, tmp_path / "whole", cache=tmp_path / "cache_whole")
    jobs = Counter(begun(log))
    assert set(jobs.values()) == {1}
    log.unlink()
    out, cache = tmp_path / "killed", tmp_path / "cache"
    rng = random.Random(5)
    kills, seen = 0, []
    for _ in range(10):
        process = _start(recipe, out, cache)
        # The next moment is counted in jobs, not in seconds: kills then fall into the work on a machine of any speed.
        until = len(begun(log)) + rng.randint(1, 4)
        while len(begun(log)) < until and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.08))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()  # type: ignore[union-attr]
        seen.append(sum(JobStore(cache).is_done(job_id) for job_id in jobs))
    # The test means something only if kills fell into the middle of the work.
    assert kills >= 3
    assert len({count for count in seen if 0 < count < len(jobs)}) >= 2
    collect(recipe, out, cache=cache)
    assert tree(out, without=()) == tree(tmp_path / "whole", without=())
    again = Counter(begun(log))
    assert set(again) == set(jobs)
    # One job is in flight at a time: a kill repeats one job at most.
    assert again.total() <= jobs.total() + kills
