from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest

from forgery_det.safety.judges.base import Judge, Subject
from forgery_det.safety.panel import CORRUPTION, Panel, combine
from forgery_det.safety.plan import CombinationSpec
from forgery_det.safety.types import Judgement, Kind, Verdict
from synth.safety_plan import context, picture, subject


class Fixed(Judge):
    """Says what it is told to and counts how often it was asked."""

    kinds: frozenset[Kind] = frozenset({"image", "text"})

    def __init__(self, folder: Path, name: str, verdict: Verdict | None) -> None:
        super().__init__(None, context(folder, name))
        self.verdict = verdict
        self.asked: list[Subject] = []

    def version(self) -> str:
        return "1"

    def judge(self, subject: Subject) -> Judgement:
        self.asked.append(subject)
        return Judgement(self.verdict, 0.5, {"said": str(self.verdict)})


class FixedThree(Fixed):
    three_classes: ClassVar[bool] = True


class FixedImages(Fixed):
    kinds: frozenset[Kind] = frozenset({"image"})


class Labels(Fixed):
    looks: ClassVar[bool] = False


def final(panel: Panel, *subjects: Subject) -> dict[tuple[str, str], dict]:
    rows = panel.rows(panel.sit(subjects, {}))
    return {(row["judge"], row["pathway"]): row for row in rows}


def test_a_corrupted_image_is_corrupted_for_judges_of_two_classes(tmp_path: Path) -> None:
    corruption = FixedImages(tmp_path, CORRUPTION, "corrupted")
    judges = {"a": Fixed(tmp_path, "two", "unsafe"), "b": FixedThree(tmp_path, "three", "unsafe")}
    combination = CombinationSpec("both", "all_of", ("two", "three"))
    found = final(Panel(judges, (combination,), ("c", corruption)), subject(), subject(text="a sentence"))
    assert found["two", "generation"]["verdict"] == "corrupted"
    # What it said itself is kept.
    assert json.loads(found["two", "generation"]["raw"]) == {"own_verdict": "unsafe", "said": "unsafe"}
    assert found["two", "generation"]["score"] == 0.5
    assert found["three", "generation"]["verdict"] == "unsafe"
    assert found["both", "generation"]["verdict"] == "corrupted"
    # Texts are not shown to the corruption detector and keep their verdict.
    assert found["two", "understanding"]["verdict"] == "unsafe"
    assert found["both", "understanding"]["verdict"] == "unsafe"
    assert (CORRUPTION, "understanding") not in found


@pytest.mark.parametrize(
    ("rule", "verdicts", "together"),
    [
        ("any_of", ["safe", "safe", "unsafe"], "unsafe"),
        ("any_of", ["safe", None, "safe"], "safe"),
        ("all_of", ["unsafe", "safe", "unsafe"], "safe"),
        ("all_of", ["unsafe", None, "unsafe"], "unsafe"),
        ("majority", ["unsafe", "safe", "unsafe"], "unsafe"),
        ("majority", ["unsafe", "safe"], "safe"),
        ("majority", ["unsafe", "corrupted", "corrupted"], "corrupted"),
        ("any_of", ["corrupted", "unsafe"], "unsafe"),
        ("all_of", ["corrupted", "safe"], "safe"),
        ("majority", [None, None], None),
    ],
)
def test_combinations(rule: str, verdicts: list[Verdict | None], together: Verdict | None) -> None:
    assert combine(rule, verdicts) == together


def test_a_combination_judges_what_all_its_members_have_seen(tmp_path: Path) -> None:
    judges = {"a": Fixed(tmp_path, "all", "safe"), "b": FixedImages(tmp_path, "images", "unsafe")}
    combination = CombinationSpec("either", "any_of", ("all", "images"))
    found = final(Panel(judges, (combination,)), subject(), subject(text="a sentence"))
    assert found["either", "generation"]["verdict"] == "unsafe"
    assert json.loads(found["either", "generation"]["raw"]) == {"all": "safe", "images": "unsafe"}
    assert found["either", "generation"]["judge_version"] == "any_of of all, images"
    assert ("either", "understanding") not in found


def test_only_a_judge_that_was_added_is_asked(tmp_path: Path) -> None:
    first, second = Fixed(tmp_path, "first", "safe"), Fixed(tmp_path, "second", "unsafe")
    known = Panel({"a": first}, ()).sit([subject()], {})
    found = Panel({"a": first, "b": second}, ()).sit([subject()], known)
    assert (len(first.asked), len(second.asked)) == (1, 1)
    assert {name: [row["verdict"] for row in rows] for name, rows in found.items()} == {"a": ["safe"], "b": ["unsafe"]}
    # A judge that was taken out says nothing any more.
    assert set(Panel({"b": second}, ()).sit([subject()], found)) == {"b"}


@pytest.mark.parametrize(
    ("kind", "verdict", "careful"),
    [(Fixed, "unsafe", True), (Fixed, None, True), (Fixed, "safe", False), (Labels, None, False),
     (Labels, "unsafe", True)],
)  # fmt: skip
def test_what_could_not_be_judged_is_handled_with_care(
    tmp_path: Path, kind: type[Fixed], verdict: Verdict | None, careful: bool
) -> None:
    panel = Panel({"a": kind(tmp_path, "one", verdict), "b": Fixed(tmp_path, "two", "safe")}, ())
    found = panel.careful_hops(panel.sit([subject(image=picture())], {}))
    assert found == ({"output"} if careful else set())
