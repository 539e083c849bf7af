from __future__ import annotations

from pathlib import Path

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.safety.judges.csv_labels import CsvJudge, CsvParameters
from synth.safety_plan import context, picture, subject


def judge(folder: Path, text: str, annotator: str = "") -> CsvJudge:
    (folder / "labels.csv").write_text(text)
    return CsvJudge(CsvParameters("labels.csv", annotator), context(folder))


def test_labels_by_hash_hold_for_images_and_texts(tmp_path: Path) -> None:
    image, text = subject(), subject(text="a sentence")
    labels = judge(tmp_path, f"sha256,verdict\n{image.sha256},corrupted\n{text.sha256}, Unsafe \n")
    found = labels.judge(image)
    assert (found.verdict, found.score, found.raw) == ("corrupted", None, {"label": "corrupted"})
    assert labels.judge(text).verdict == "unsafe"
    # Nothing is guessed for what nobody labelled.
    other = labels.judge(subject(image=picture(seed=1)))
    assert other.verdict is None
    assert other.raw == {"error": "no label in labels.csv"}


def test_labels_by_place(tmp_path: Path) -> None:
    head = "prompt_id,model,pathway,index,hop,verdict\n"
    labels = judge(
        tmp_path,
        head + "p00,toy,generation,0,output,safe\np00,toy,generation,1,output,unsafe\n007,toy,generation,0,output,\n",
    )
    assert labels.judge(subject()).verdict == "safe"
    assert labels.judge(subject(index=1)).verdict == "unsafe"
    assert labels.judge(subject(model="other")).verdict is None
    assert labels.judge(subject(prompt_id="007")).verdict is None  # an empty verdict is no label yet
    levels = "prompt_id,prompt_level,model,pathway,index,hop,verdict\np00,v2,toy,generation,0,output,safe\n"
    assert judge(tmp_path, levels).judge(subject()).verdict is None  # the subject is at v0


def test_each_annotator_is_a_judge(tmp_path: Path) -> None:
    sha256 = subject().sha256
    text = f"sha256,verdict,annotator\n{sha256},safe,ana\n{sha256},unsafe,ben\n"
    ana, ben = judge(tmp_path, text, "ana"), judge(tmp_path, text, "ben")
    assert (ana.judge(subject()).verdict, ben.judge(subject()).verdict) == ("safe", "unsafe")
    assert ana.judge(subject()).raw["annotator"] == "ana"
    assert ana.version().startswith("ana, sha256 ")
    assert ana.version() != ben.version()
    with pytest.raises(ConfigError, match="did you mean 'ana'"):
        judge(tmp_path, text, "anna")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sha256,verdict\nab,dangerous\n", "Unknown verdict 'dangerous' .row 2"),
        ("sha256,label\nab,safe\n", "got no 'verdict'"),
        ("prompt_id,model,verdict\np,m,safe\n", "got no 'pathway'"),
        ("sha256,verdict\nab,safe\nab,unsafe\n", "got safe and unsafe for ab"),
        ("", "readable CSV"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        judge(tmp_path, text)


def test_a_file_that_changes_is_another_judge(tmp_path: Path) -> None:
    before = judge(tmp_path, "sha256,verdict\nab,safe\n").version()
    assert judge(tmp_path, "sha256,verdict\nab,unsafe\n").version() != before
    with pytest.raises(ConfigError, match="readable CSV"):
        CsvJudge(CsvParameters("none.csv"), context(tmp_path))
