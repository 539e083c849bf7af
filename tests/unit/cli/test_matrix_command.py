from __future__ import annotations

from pathlib import Path

import pytest

from forgery_det.cli import main
from forgery_det.core.shipped import shipped_config
from synth.runs import table_dataset

NAMES = ("leave_one_generator_out", "train_on_paradigm")


@pytest.mark.parametrize("name", NAMES)
def test_shipped_plans_are_understood(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Planning is reached, and says that a dataset with test images alone can train nothing."""
    dataset = table_dataset(tmp_path / "photos", 20, 20).root
    plan = shipped_config(f"matrix/{name}.yaml")
    assert main(["matrix", str(dataset), "--out", str(tmp_path / "out"), "--config", str(plan)]) == 2
    told = capsys.readouterr().err
    assert "nothing can be left out" in told or "no generated image would be left in train and val" in told


def test_every_shipped_plan_is_tested() -> None:
    assert {path.stem for path in shipped_config(f"matrix/{NAMES[0]}.yaml").parent.glob("*.yaml")} == set(NAMES)
