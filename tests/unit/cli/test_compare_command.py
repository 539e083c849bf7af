from __future__ import annotations

from pathlib import Path

import pytest

from forgery_det.cli import main
from synth.runs import normal_logits, table_dataset, table_run


def test_compare_prints_the_leaderboard_best_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = table_dataset(tmp_path / "photos", 60, 60)
    weak = table_run(tmp_path / "weak", manifest, normal_logits(manifest, 0.2, 0))
    strong = table_run(tmp_path / "strong", manifest, normal_logits(manifest, 3.0, 1))
    out = tmp_path / "out"
    assert main(["compare", str(weak), str(strong), "--out", str(out), "--n_replicates", "50"]) == 0
    told = capsys.readouterr().out
    assert told.index("strong") < told.index("weak")
    assert "Detectors that share a letter are not shown to differ." in told
    assert told.rstrip().endswith(f"Page: {out / 'compare.html'}")


def test_bad_input_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = table_dataset(tmp_path / "photos", 10, 10)
    run = table_run(tmp_path / "run", manifest, normal_logits(manifest, 1.0, 0))
    assert main(["compare", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "Expected at least 2 runs to compare, got 1." in capsys.readouterr().err
    assert main(["compare", str(run), str(run), "--out", str(tmp_path / "out"), "--alpha", "2"]) == 2
    assert "Expected `alpha` in (0, 1), got 2.0." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
