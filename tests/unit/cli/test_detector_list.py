from __future__ import annotations

import pytest

from forgery_det.cli import detector_list, main
from forgery_det.detectors.costs import FILE_NAME, Cost, read_costs, write_costs


@pytest.fixture(autouse=True)
def few_detectors(monkeypatch, tmp_path):
    monkeypatch.setenv("FORGERY_DET_CACHE", str(tmp_path))
    rows = detector_list.detector_rows
    names = ("cnndetection", "npr", "univfd")
    monkeypatch.setattr(detector_list, "detector_rows", lambda costs: rows(names, costs))
    monkeypatch.setattr(detector_list, "list_detectors", lambda: names)


@pytest.mark.parametrize("columns", [80, 160])
def test_everything_is_shown_whole_at_any_width(columns, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", str(columns))
    write_costs(tmp_path / FILE_NAME, {"npr": Cost(123.4, 321_000_000)})
    assert main(["list", "detectors"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    assert "…" not in out
    words = ("cnndetection", "2020", "Wang et al.", "ResNet-50", "whole image", "23.5", "MIT", "123", "321", "CVPR")
    assert [word for word in words if word not in out] == []
    together = "".join(out.split())
    assert ("https://github.com/PeterWang512/CNNDetection" in together) == (columns == 80)
    assert "list detectors --measure" in " ".join(out.split())


def test_measuring_is_kept_for_the_next_time(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(detector_list, "measure_cost", lambda name: Cost(float(len(name)), 5_000_000))
    assert main(["list", "detectors", "--markdown", "true", "--measure", "true"]) == 0
    out = capsys.readouterr().out
    assert "| `univfd` | 304.0 | 6 | 5 |" in out
    assert read_costs(tmp_path / FILE_NAME)["npr"] == Cost(3.0, 5_000_000)
    assert main(["list", "detectors"]) == 0
    assert "--measure" not in capsys.readouterr().out
