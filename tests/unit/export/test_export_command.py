"""`forgery-det export` and the last stage of `quickstart`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forgery_det.cli import main, quickstart
from forgery_det.export.errors import ParityError


@pytest.mark.slow
def test_quickstart_keeps_a_finished_bundle_of_the_same_checkpoint(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart, "run_export", lambda *_, **__: pytest.fail("exported again"))
    before = (tiny_bundle / "bundle.json").stat().st_mtime_ns
    root = tiny_bundle.parent
    quickstart._export(root / "model.ckpt", root / "dataset", tiny_bundle, root)
    assert capsys.readouterr().out == f"bundle: {tiny_bundle} (unchanged)\n"
    assert (tiny_bundle / "bundle.json").stat().st_mtime_ns == before


def test_quickstart_goes_on_without_int8_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def refuse_int8(*arguments: object, formats: tuple[str, ...], **keywords: object) -> str:
        asked.append(formats)
        if "onnx_int8" in formats:
            raise ParityError("Expected onnx_int8 to lose at most 0.5 points")
        return "summary"

    monkeypatch.setattr(quickstart, "run_export", refuse_int8)
    monkeypatch.setattr(quickstart, "print_parity", print)
    quickstart._export(tmp_path / "a.ckpt", tmp_path, tmp_path / "bundle", tmp_path)
    assert asked == [("onnx", "onnx_int8"), ("onnx",)]
    assert "at most 0.5 points\nGoing on with onnx alone.\nsummary" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_writes_a_bundle_with_a_card_of_the_run(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, dataset = str(tiny_bundle.parent / "model.ckpt"), str(tiny_bundle.parent / "dataset")
    assert main(["evaluate", checkpoint, dataset, "--out", str(tmp_path / "run"), "--n_replicates", "50"]) == 0
    options = ["--dataset", dataset, "--out", str(tmp_path / "bundle"), "--run", str(tmp_path / "run")]
    assert main(["export", checkpoint, *options, "--formats", "[onnx,pt2]"]) == 0
    told = capsys.readouterr().out
    assert "pt2" in told
    assert f"bundle: {tmp_path / 'bundle'}" in told
    document = json.loads((tmp_path / "bundle/bundle.json").read_text(encoding="utf-8"))
    overall = [row for row in document["held_out"] if (row["metric"], row["slice"]) == ("auroc", "overall")]
    assert overall[0]["ci_low"] <= overall[0]["value"] <= overall[0]["ci_high"]
    card = (tmp_path / "bundle/MODEL_CARD.md").read_text(encoding="utf-8")
    assert "No audit was given" in card.replace("\\", "")
    assert main(["self-test", str(tmp_path / "bundle")]) == 0
    assert main(["export", checkpoint, *options[:2], "--out", dataset]) == 2
    assert "which holds something else" in capsys.readouterr().err
