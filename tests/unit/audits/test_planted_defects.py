"""A clean seeded dataset passes all audits; a planted defect is found by those that should see it, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from forgery_det.audits import AUDITS, audit
from forgery_det.core.artefacts import write_json
from forgery_det.core.manifest import Manifest
from synth.planted import Planter

Plant = Callable[[Planter], None]


def found(planter: Planter) -> set[str]:
    """Build the dataset and return the audits with a failure or a warning."""
    report = audit(planter.build(), n_replicates=100)
    assert {finding.name for finding in report.findings} == set(AUDITS.names())
    return {finding.name for finding in report.findings if finding.level in ("fail", "warn")}


def change(label: int, **values: object) -> Plant:
    def plant(planter: Planter) -> None:
        for entry in planter.of_label(label):
            entry.update(values)

    return plant


def copy(index: int = 0, **values: object) -> Plant:
    """Add an image of the plan again, from a new source, changed."""

    def plant(planter: Planter) -> None:
        planter.plan.append(planter.plan[index] | {"source_id": "copy", "prompt_id": None, "prompt": None} | values)

    return plant


def no_real_test_images(planter: Planter) -> None:
    planter.plan = [entry for entry in planter.plan if entry["split"] != "test" or entry["label"]]


def one_source_in_two_splits(planter: Planter) -> None:
    planter.plan[0]["source_id"] = planter.plan[40]["source_id"] = "one-photo"


def webp_of_two_qualities(planter: Planter) -> None:
    for entry in planter.plan:
        entry.update({"codec": "webp", "quality": 95 if entry["label"] else 50})


def other_subjects(planter: Planter) -> None:
    """A tint of the upper half under one recorded policy; its bytes stay much the same."""
    for entry in planter.of_label(1):
        entry["tint"] = 25
    write_json(planter.root / "dataset.json", {"policies": {"align": {"codec": "jpeg", "quality": 90}}})


def repeated_prompt(planter: Planter) -> None:
    train, test = planter.plan[1], planter.plan[47]
    test["prompt"] = train["prompt"].upper() + ", please!"


def repeated_prompt_id(planter: Planter) -> None:
    planter.plan[47]["prompt_id"] = planter.plan[1]["prompt_id"]


DEFECTS: dict[str, tuple[Plant, set[str]]] = {
    "size": (change(1, width=56), {"file_facts", "histogram_distances"}),
    "codec": (change(1, codec="webp", quality=90), {"file_facts", "histogram_distances"}),
    "jpeg_quality": (change(0, quality=75), {"file_facts", "histogram_distances"}),
    "webp_quality": (webp_of_two_qualities, {"file_facts", "histogram_distances"}),
    "subject": (other_subjects, {"thumbnail_content"}),
    "one_class": (no_real_test_images, {"class_presence"}),
    "resized_copy": (copy(split="test", quality=80), {"duplicates_across_splits"}),
    "mirrored_copy": (copy(split="test", mirror=True), {"near_duplicates"}),
    "cropped_copy": (copy(split="test", crop=0.88), {"near_duplicates"}),
    "other_label": (copy(label=1, generator="flux", paradigm="diffusion", tint=2), {"duplicates_across_splits"}),
    "source": (one_source_in_two_splits, {"source_across_splits"}),
    "prompt": (repeated_prompt, {"prompt_overlap"}),
    "prompt_id": (repeated_prompt_id, {"prompt_overlap"}),
}


def test_a_clean_dataset_passes(planter: Planter) -> None:
    assert found(planter) == set()


FAST = ("codec",)
"""The others run with the slow tests; the audits behind them have fast tests of their own."""


@pytest.mark.parametrize(
    "defect", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in sorted(DEFECTS)]
)
def test_a_defect_is_found_by_the_right_audit(planter: Planter, defect: str) -> None:
    plant, expected = DEFECTS[defect]
    plant(planter)
    assert found(planter) == expected


@pytest.mark.slow
def test_a_missing_file_is_found(planter: Planter) -> None:
    dataset = planter.build()
    manifest = Manifest.load(dataset)
    manifest.image_file(manifest.frame["path"][3]).unlink()
    report = audit(dataset, n_replicates=100)
    assert {finding.name for finding in report.findings if finding.level in ("fail", "warn")} == {"missing_files"}


@pytest.mark.slow
def test_swapped_labels_are_found(tmp_path: Path) -> None:
    planter = Planter(tmp_path, n=144)
    for entry in planter.plan:
        entry["stripes"] = "xy"[entry["label"]]
    swapped = [10, 31, 52, 73, 98, 111]
    for index in swapped:
        planter.plan[index]["stripes"] = "yx"[planter.plan[index]["label"]]
    report = audit(planter.build(), n_replicates=100)
    assert {finding.name for finding in report.findings if finding.level in ("fail", "warn")} == {"label_noise"}
    (finding,) = [finding for finding in report.findings if finding.name == "label_noise"]
    listed = [row["source_id"] for row in finding.rows]
    assert {planter.plan[index]["source_id"] for index in swapped} <= set(listed)
    assert len(listed) <= len(swapped) + 1
