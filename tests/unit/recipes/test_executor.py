"""Executors: the same dataset wherever the jobs run, and a worker that dies loses the job in flight and no other."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forgery_det.cli import main
from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.progress import Progress
from forgery_det.recipes.build import collect
from forgery_det.recipes.generate.base import GeneratorContext, GeneratorSpec
from forgery_det.recipes.generate.command import CommandParameters
from forgery_det.recipes.generate.executor import Budget, create_executor
from forgery_det.recipes.generate.executor_ray import RayExecutor
from forgery_det.recipes.generate.job import Job
from forgery_det.recipes.generate.store import JobStore
from synth.images import tree, write_images, write_recipe

TWO_WORKERS = {"kind": "ray", "workers": 2, "cpus": 0.5}

PROGRAM = """
import json, os, random, sys, time
from PIL import Image
folder = os.path.dirname(os.path.abspath(__file__))
for line in sys.stdin:
    job = json.loads(line)
    with open(os.path.join(folder, "begun"), "a") as file:
        file.write(f"{os.getppid()} {job['prompt']}\\n")
    if job["prompt"] in sys.argv[1:]:
        os.kill(os.getppid(), 9)
        time.sleep(60)
    time.sleep(0.05)
    random.seed(job["seed"])
    Image.frombytes("RGB", (64, 64), random.randbytes(64 * 64 * 3)).save(job["output_path"])
    print(json.dumps({"job_id": job["job_id"], "status": "image"}), flush=True)
"""


def _program(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.py").write_text(PROGRAM)
    return folder / "program.py"


def _begun(program: Path) -> list[tuple[int, str]]:
    lines = (program.parent / "begun").read_text().splitlines()
    return [(int(pid), prompt) for pid, _, prompt in (line.partition(" ") for line in lines)]


def _spec(program: Path, *deadly: str, command: str = "{python}") -> GeneratorSpec:
    parameters = CommandParameters(command=(command, str(program), *deadly))
    return GeneratorSpec("command", parameters, GeneratorContext("toy", "toy", None, program.parent, program.parent))


def _jobs(count: int) -> list[Job]:
    return [Job("toy", "command", "toy", "", f"p{index}", None, index, {}) for index in range(count)]


def _recipe(folder: Path, program: Path) -> Path:
    write_images(folder / "real", 4, generated=False, width_px=64)
    rows = "".join(f"p{index},picture number {index}\n" for index in range(12))
    (folder / "prompts.csv").write_text("id,text\n" + rows)
    sources: list[dict[str, Any]] = [
        {"id": "photos", "kind": "folder", "root": str(folder / "real"), "label": "real", "licence": "CC0"},
        {
            "id": "toys",
            "kind": "generate",
            "label": "generated",
            "licence": "CC0",
            "generator": {
                "name": "toy", "kind": "command", "model": "toy", "paradigm": "gan",
                "command": ["{python}", str(program)],
            },
            "prompts": "captions",
        },
    ]  # fmt: skip
    columns = {"prompt": "text", "content_id": "id"}
    prompts = {"captions": {"from": {"kind": "prompt_file", "path": "prompts.csv", "columns": columns}}}
    return write_recipe(folder / "recipe.yaml", sources, prompt_sets=prompts)


def test_the_options_of_an_executor_are_checked() -> None:
    with pytest.raises(ConfigError, match="Expected `workers` of at least 1, got 0"):
        create_executor("ray", {"workers": 0})
    with pytest.raises(ConfigError, match=r"Unknown key 'workers' .executor local"):
        create_executor("local", {"workers": 2})


def test_a_recipe_with_a_wrong_executor_is_refused_at_once(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, _program(tmp_path))
    recipe.write_text(recipe.read_text().replace("prompts: captions", "prompts: captions\n  executor: {kind: rey}"))
    with pytest.raises(ConfigError, match="Unknown executor 'rey': did you mean 'ray'"):
        collect(recipe, tmp_path / "out", cache=tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # ray leaves its log files and sockets to the collector
def test_two_workers_one_of_them_killed_make_the_dataset_that_this_process_makes(tmp_path: Path) -> None:
    program = _program(tmp_path / "program")
    recipe = _recipe(tmp_path, program)
    expected = tree(collect(recipe, tmp_path / "local", cache=tmp_path / "local-cache").dataset)
    (program.parent / "begun").unlink()
    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        if progress.stage == "generate toy" and progress.done == 3 and not killed:
            pid, _ = _begun(program)[0]
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    out, cache = tmp_path / "ray", tmp_path / "ray-cache"
    summary = collect(recipe, out, cache=cache, executor=TWO_WORKERS, progress=kill_one)
    assert killed
    assert summary.n_images == 16
    assert summary.refused == {}
    assert tree(summary.dataset) == expected
    begun = _begun(program)
    assert len({pid for pid, _ in begun}) >= 3, "two workers, and the one that took the place of the dead"
    again = {prompt: count for prompt, count in Counter(prompt for _, prompt in begun).items() if count > 1}
    assert list(again.values()) in ([], [2]), "nothing but the job in flight is done twice"
    (program.parent / "begun").unlink()
    words = ["collect", str(recipe), "--out", str(out), "--cache", str(cache), "--executor", "ray", "--workers", "2"]
    assert main(words) == 0
    assert not (program.parent / "begun").exists(), "nothing is done again"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_job_that_kills_its_workers_fails_and_the_others_do_not(tmp_path: Path) -> None:
    program = _program(tmp_path)
    jobs, store = _jobs(6), JobStore(tmp_path / "cache")
    executor = RayExecutor(workers=2, cpus=0.5, attempts=2)
    # A cluster that is there already is used, and left running.
    ray = executor.connected()
    try:
        executor.run(_spec(program, "p2"), jobs, store.read_input, store, Budget())
        assert ray.is_initialized()
        with pytest.raises(SourceError, match="no-such-program"):
            executor.run(
                _spec(program, command="/no-such-program"), jobs, store.read_input, JobStore(tmp_path), Budget()
            )
    finally:
        ray.shutdown()
    outcomes = {job.prompt: store.get(job.job_id) for job in jobs}
    assert {prompt for prompt, outcome in outcomes.items() if outcome and outcome.kind == "image"} == {
        "p0", "p1", "p3", "p4", "p5",
    }  # fmt: skip
    failed = outcomes["p2"]
    assert failed is not None
    assert (failed.kind, failed.is_final) == ("failed", False)
    assert "got 2 that died on this job" in failed.detail
