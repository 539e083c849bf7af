from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import read_facts
from forgery_det.recipes.generate.base import GeneratorContext
from forgery_det.recipes.generate.command import CommandGenerator, CommandParameters
from forgery_det.recipes.generate.job import Job, Outcome
from synth.generating import TOY, begun


def job(prompt: str, seed: int = 0) -> Job:
    return Job("toy", "command", "toy", "", prompt, None, seed, {"side_px": 8})


@pytest.fixture
def context(tmp_path: Path) -> GeneratorContext:
    return GeneratorContext("toy", "toy", None, tmp_path, tmp_path / "cache")


def generator(context: GeneratorContext, **changes: Any) -> CommandGenerator:
    command = ("{python}", "-I", str(TOY), str(context.folder / "log"))
    return CommandGenerator(CommandParameters(**({"command": command, "timeout_s": 20.0} | changes)), context)


def run(made: CommandGenerator, *jobs: Job, inputs: Any = None) -> list[tuple[str | None, Outcome]]:
    return [(one.prompt, outcome) for one, outcome in made.run(jobs, inputs)]


def test_every_status_comes_back(context: GeneratorContext) -> None:
    found = dict(run(generator(context), *map(job, ["a fox", "refuse this", "block this", "fail this", "garbage"])))
    kinds = {prompt: outcome.kind for prompt, outcome in found.items()}
    assert kinds == {
        "a fox": "image",
        "refuse this": "refused",
        "block this": "blocked",
        "fail this": "failed",
        "garbage": "failed",
    }
    assert read_facts(found["a fox"].data or b"").width_px == 8
    assert found["refuse this"].detail == "The toy will not: refuse this."
    assert "not_an_image" in found["garbage"].detail
    assert found["a fox"].provenance["model_version_returned"] == "toy-1"
    assert found["a fox"].provenance["told"] == {"pid": 0}


def test_other_lines_are_kept_in_the_log(context: GeneratorContext) -> None:
    ((_, outcome),) = run(generator(context), job("chatter"))
    assert outcome.kind == "image"
    log = (context.cache / "generated" / "logs" / "toy.log").read_text()
    assert "loading weights ... {not json" in log
    assert "warming up" in log


def test_after_a_crash_the_program_starts_again(context: GeneratorContext) -> None:
    found = dict(run(generator(context), *map(job, ["one", "crash once", "two"])))
    assert [outcome.kind for outcome in found.values()] == ["image"] * 3
    assert found["crash once"].provenance["attempts"] == 2
    assert found["one"].provenance["attempts"] == 1


def test_a_job_that_always_crashes_has_failed_and_the_others_go_on(context: GeneratorContext) -> None:
    made = generator(context, attempts=2, in_flight=2)
    found = dict(run(made, *map(job, ["one", "crash", "two", "three"])))
    assert {prompt: outcome.kind for prompt, outcome in found.items()} == {
        "one": "image",
        "crash": "failed",
        "two": "image",
        "three": "image",
    }
    assert "exit status 12" in found["crash"].detail
    assert begun(context.folder / "log").count(job("crash").job_id) == 2


def test_silence_is_ended_and_the_job_fails(context: GeneratorContext) -> None:
    found = dict(run(generator(context, timeout_s=0.2, start_timeout_s=0.2, attempts=1), *map(job, ["hang", "one"])))
    assert (
        found["hang"].detail == "Expected an answer, got 1 times: Expected an answer, got silence for 0.4 s. Last "
        "lines: (none)"
    )
    assert found["one"].kind == "image"


def test_a_program_that_only_crashes_stops_the_run(context: GeneratorContext) -> None:
    made = generator(context, max_crashes=3, attempts=9)
    with pytest.raises(SourceError, match=r"got 3 crashes in a row: .*exit status 12.*log: .*toy\.log.*is kept"):
        run(made, job("crash"))


def test_a_program_that_is_not_there_is_named(context: GeneratorContext) -> None:
    with pytest.raises(SourceError, match="Expected to start 'no-such-program', got: No such file"):
        run(generator(context, command=("no-such-program",)), job("one"))


def test_input_images_lie_in_files(context: GeneratorContext) -> None:
    script = context.folder / "copy.py"
    script.write_text(
        "import json, shutil, sys\n"
        "for line in sys.stdin:\n"
        "    job = json.loads(line)\n"
        "    shutil.copy(job['image_path'], job['output_path'])\n"
        "    print(json.dumps({'job_id': job['job_id'], 'status': 'image'}), flush=True)\n"
    )
    data = dict(run(generator(context), job("a fox")))["a fox"].data
    made = generator(context, command=("{python}", "{folder}/copy.py"))
    ((_, outcome),) = run(made, replace(job("x"), image_sha256="1" * 64), inputs={"1" * 64: data}.__getitem__)
    assert outcome.data == data


def test_closing_the_iterator_ends_the_program(context: GeneratorContext) -> None:
    script = context.folder / "pid.py"
    script.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    answer = {'job_id': json.loads(line)['job_id'], 'status': 'refused', 'detail': str(os.getpid())}\n"
        "    print(json.dumps(answer), flush=True)\n"
    )
    running = generator(context, command=("{python}", "-I", "{folder}/pid.py")).run([job("a"), job("b")], None)  # type: ignore[arg-type]
    _, outcome = next(running)
    running.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(int(outcome.detail), 0)


def test_the_command_line_is_no_part_of_a_job(context: GeneratorContext) -> None:
    made = generator(context, parameters={"steps": 4}, timeout_s=3.0)
    assert made.job_parameters() == {"steps": 4}


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"command": ()}, "name a program"), ({"timeout_s": 0.0}, "`timeout_s` above 0"), ({"attempts": 0}, "`attempts`")],
)
def test_mistakes_are_named(context: GeneratorContext, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        generator(context, **changes)


DOCS = Path(__file__).parents[4] / "docs" / "generators.md"


def python_blocks() -> dict[str, str]:
    """File name -> content of the programs in `docs/generators.md`; the first line of each names it."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return {block.split()[1].rstrip(":"): block for block in blocks}


def test_the_half_of_an_adapter_that_the_docs_show_works(context: GeneratorContext) -> None:
    (context.folder / "job_lines.py").write_text(python_blocks()["job_lines.py"])
    (context.folder / "mine.py").write_text(
        "from job_lines import serve\n"
        "class Picture:\n"
        "    def save(self, path):\n"
        "        print('saving', path)\n"
        "        open(path, 'wb').write(open('small.png', 'rb').read())\n"
        "def make(job):\n"
        "    return Picture() if job['prompt'] != 'nothing' else 1 / 0\n"
        "serve(make, 'mine-1')\n"
    )
    image = dict(run(generator(context), job("a fox")))["a fox"].data or b""
    (context.folder / "small.png").write_bytes(image)
    made = generator(context, command=("{python}", "mine.py"))
    found = dict(run(made, *map(job, ["one", "nothing", "two"])))
    assert [outcome.kind for outcome in found.values()] == ["image", "failed", "image"]
    assert found["one"].data == image
    assert found["one"].provenance["model_version_returned"] == "mine-1"
    assert found["nothing"].detail == "ZeroDivisionError: division by zero"


def test_every_adapter_of_the_docs_is_python() -> None:
    # No more than that can be said of them without their weights.
    blocks = python_blocks()
    assert set(blocks) == {"job_lines.py", "janus_jobs.py", "bagel_jobs.py", "tokenflow_jobs.py", "vila_u_jobs.py"}
    for name, block in blocks.items():
        compile(block, name, "exec")
