from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

import forgery_det
from forgery_det.cli import COMMANDS, main, parse_options
from forgery_det.cli.display import _Lines
from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import Progress
from forgery_det.core.shipped import shipped_config

ROOT = Path(__file__).parents[3]

COMMANDS_OF_THE_DESIGN = {
    "audit",
    "collect",
    "compare",
    "ensemble",
    "evaluate",
    "export",
    "fit",
    "list",
    "matrix",
    "predict",
    "push",
    "quickstart",
    "safety",
    "self-test",
    "serve",
}


def test_public_names_are_frozen() -> None:
    assert sorted(forgery_det.__all__) == [
        "Manifest",
        "Predictor",
        "__version__",
        "audit",
        "collect",
        "create_detector",
        "evaluate",
        "export",
        "list_detectors",
    ]
    for name in forgery_det.__all__:
        assert getattr(forgery_det, name) is not None
    with pytest.raises(AttributeError, match=r"no attribute 'colect'\. Public names: Manifest, "):
        forgery_det.colect  # noqa: B018 - the access is the test


@pytest.mark.parametrize("statement", ["import forgery_det", "from forgery_det.cli import main; main(['--help'])"])
def test_start_up_imports_neither_torch_nor_wandb(statement: str) -> None:
    heavy = ["torch", "wandb", "lightning", "polars", "timm"]
    code = f"import sys\n{statement}\nprint('loaded', [m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(COMMANDS) == COMMANDS_OF_THE_DESIGN
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in COMMANDS)
    assert main([]) == 0
    assert main(["--version"]) == 0
    assert forgery_det.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"forgery-det {name}" in capsys.readouterr().out


def test_bad_usage_is_2_and_says_what_was_meant(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["colect"]) == 2
    assert "Unknown command 'colect': did you mean 'collect'?" in capsys.readouterr().err
    assert main(["audit", str(tmp_path)]) == 2
    assert "Expected a dataset folder with manifest.parquet" in capsys.readouterr().err
    assert main(["audit", str(tmp_path), "--sed", "3"]) == 2
    assert main(["predict", str(tmp_path / "none.ckpt")]) == 2
    assert "got nothing to score" in capsys.readouterr().err


def _documented_commands() -> list[tuple[str, str]]:
    """Return where and what: every `forgery-det ...` line that a reader could copy."""
    files = [ROOT / "README.md", ROOT / "Makefile", *sorted((ROOT / "docs").glob("*.md"))]
    files += [*sorted((ROOT / "configs").rglob("*.yaml")), *sorted((ROOT / "data_recipes").glob("*/README.md"))]
    line = re.compile(
        r"^(?:# |\t|> )?(?:\.venv/bin/|\$\(BIN\)/|\$ )?forgery-det (?P<words>[a-z][a-z-]* .*?)(?: {2,}[^ ].*)?$"
    )
    text_of = {
        path: path.read_text(encoding="utf-8").replace("\\\n", " ") for path in files if path.name != "design.md"
    }
    found = [(path, line.match(row)) for path, text in text_of.items() for row in text.splitlines()]
    return [(str(path.relative_to(ROOT)), match["words"]) for path, match in found if match]


def test_documented_commands_are_found() -> None:
    places = {place for place, _ in _documented_commands()}
    assert {"README.md", "Makefile", "docs/audits.md", "configs/evaluate/default.yaml"} <= places


@pytest.mark.parametrize(("place", "words"), _documented_commands())
def test_every_documented_command_parses(place: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = words.replace("$(OUT)", "out").replace("$(if $(QUICK),--quick)", "--quick").rstrip(".")
    name, *rest = [word for word in shlex.split(words, comments=True) if word not in ("...", "|", "[--quick]")]
    assert name in COMMANDS, place
    if "--config" in rest and not rest[rest.index("--config") + 1].startswith("configs/"):
        # A file of the reader's own.
        del rest[rest.index("--config") : rest.index("--config") + 2]
    if not COMMANDS[name].raw:
        assert parse_options(name, rest), place


@pytest.mark.parametrize(
    ("words", "quick"),
    [
        (["--quick"], True),
        (["--quick", "--seed", "3"], True),
        (["--seed", "3", "--quick", "true"], True),
        (["--quick", "false"], False),
        (["--quick=false"], False),
        ([], False),
    ],
)
def test_a_flag_may_stand_alone(words: list[str], quick: bool) -> None:
    assert parse_options("quickstart", words)["quick"] is quick


def test_interruption_says_that_the_same_command_resumes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(kind: str) -> int:
        """Stop.

        Args:
            kind: any
        """
        raise KeyboardInterrupt

    monkeypatch.setattr("forgery_det.cli.listing.list_names", interrupted)
    assert main(["list", "metrics"]) == 130
    assert "the same command resumes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind",
    # Every detector is built to count its parameters; tests/unit/detectors/test_detectors_doc.py does so too.
    [pytest.param("detectors", marks=pytest.mark.slow), "recipes", "metrics", "audits", "perturbations", "protocols"],
)
def test_list_prints_every_registered_name(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"detectors": "frozen_probe", "recipes": "samples", "metrics": "auroc", "audits": "file_facts"}
    known |= {"protocols": "prompt_length", "perturbations": "social_feed"}
    assert main(["list", kind]) == 0
    assert known[kind] in capsys.readouterr().out


def test_a_config_file_gives_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "audit.yaml"
    config.write_text("auroc_limit: 2.0\n")
    from forgery_det.core.manifest import Manifest

    Manifest.from_rows([], tmp_path).write()
    assert main(["audit", str(tmp_path), "--config", str(config)]) == 2
    assert "auroc_limit" in capsys.readouterr().err


def test_shipped_configurations_are_found() -> None:
    assert shipped_config("experiment/quickstart.yaml").is_file()
    with pytest.raises(ConfigError, match=r"Expected the shipped configuration nowhere\.yaml"):
        shipped_config("nowhere.yaml")


def test_plain_progress_is_one_line_at_the_end_and_few_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(tick / 4 for tick in range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    sink = _Lines()
    for done in range(1, 31):
        sink(Progress("scoring", done, 30))
    sink(Progress("scoring", 30, 30))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("scoring: 30 of 30 images")
    assert 2 <= len(lines) <= 6
    sink(Progress("download x", 2_000_000, 4_000_000, "bytes"))
    sink(Progress("download x", 4_000_000, 4_000_000, "bytes"))
    assert "download x: 4.0 MB of 4.0 MB" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(kind: str) -> int:
        """Stop.

        Args:
            kind: any
        """
        raise BrokenPipeError

    monkeypatch.setattr("forgery_det.cli.listing.list_names", closed)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert main(["list", "metrics"]) == 0
