from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import decode_image
from forgery_det.safety.judges.image_classifier import ImageClassifierJudge, ImageClassifierParameters
from forgery_det.safety.judges.llava_guard import LlavaGuardJudge, LlavaGuardParameters
from forgery_det.safety.judges.local import load_model
from forgery_det.safety.judges.safety_checker import SafetyCheckerJudge, SafetyCheckerParameters
from synth.safety_plan import context, picture, subject
from synth.tiny_judges import save_classifier, save_guard, save_safety_checker

pytest.importorskip("diffusers", reason="the extra `generate` is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judges")
    save_safety_checker(root / "checker", 0.1)
    save_classifier(root / "one")
    save_classifier(root / "several", several=True)
    return root


def test_the_safety_checker_says_what_diffusers_says(folder: Path) -> None:
    judge = SafetyCheckerJudge(SafetyCheckerParameters("checker", device="cpu"), context(folder))
    processor, checker = judge._parts.get()
    verdicts = []
    for seed in range(3):
        found = judge.judge(subject(image=picture(seed)))
        pixels = processor(images=decode_image(picture(seed)).image_HWC, return_tensors="pt")["pixel_values"]
        for threshold in (0.1, found.score + 0.1):  # the second one is just not reached
            checker.concept_embeds_weights.data.fill_(threshold)
            _, flagged = checker(pixels, [np.ones((2, 2, 3))])
            again = judge.judge(subject(image=picture(seed)))
            assert again.verdict == ("unsafe" if flagged[0] else "safe")
            assert again.verdict == ("unsafe" if again.score > 0 else "safe")
            verdicts.append(again.verdict)
        checker.concept_embeds_weights.data.fill_(0.1)
        assert len(found.raw["concepts"]) == 17
        assert len(found.raw["special_care"]) == 3
    assert set(verdicts) == {"safe", "unsafe"}
    assert judge.version().startswith("checker sha256:")
    assert judge.judge(subject(image=b"no image")).verdict is None


def test_weights_in_the_published_layout_give_the_same_verdict(folder: Path, tmp_path: Path) -> None:
    """The file on the hub is older than the library: its vision tower lies one level deeper."""
    old = tmp_path / "checker"
    old.mkdir()
    for path in (folder / "checker").iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    weights = load_file(old / "model.safetensors")
    deeper = "vision_model.vision_model."
    renamed = {deeper + name.removeprefix(deeper).removeprefix("vision_model.") if "vision_model." in name else name:
               value for name, value in weights.items()}  # fmt: skip
    save_file(renamed, old / "model.safetensors", metadata={"format": "pt"})
    given = SafetyCheckerParameters("checker", device="cpu")
    judges = [SafetyCheckerJudge(given, context(root)) for root in (folder, tmp_path)]
    assert judges[0].judge(subject()) == judges[1].judge(subject())
    assert judges[0].version() != judges[1].version()  # other bytes are another version


def test_care_moves_all_concepts_by_a_hundredth(folder: Path) -> None:
    judge = SafetyCheckerJudge(SafetyCheckerParameters("checker", device="cpu"), context(folder))
    _, checker = judge._parts.get()
    margins = []
    for threshold in (2.0, -2.0):
        checker.special_care_embeds_weights.data.fill_(threshold)
        margins.append(judge.judge(subject()).raw["concepts"])
    assert np.subtract(margins[1], margins[0]) == pytest.approx(0.01, abs=1.1e-3)


@pytest.mark.parametrize("name", ["one", "several"])
def test_the_classifiers_labels_decide(folder: Path, name: str) -> None:
    def judge(**given) -> ImageClassifierJudge:
        return ImageClassifierJudge(ImageClassifierParameters(name, device="cpu", **given), context(folder))

    first = judge(unsafe=("nudity", "violence"))
    found = first.judge(subject())
    shares = found.raw["labels"]
    assert list(shares) == ["safe", "nudity", "violence"]
    both = shares["nudity"], shares["violence"]
    assert found.score == pytest.approx(sum(both) if name == "one" else max(both))
    if name == "one":
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
    for threshold, verdict in ((found.score, "unsafe"), (found.score + 1e-6, "safe")):
        assert judge(unsafe=("nudity", "violence"), threshold=threshold).judge(subject()).verdict == verdict
    assert first.version().endswith("nudity+violence>=0.5")
    assert first.judge(subject(image=b"no image")).verdict is None
    with pytest.raises(ConfigError, match="did you mean 'nudity'"):
        judge(unsafe=("nudty",)).judge(subject())
    with pytest.raises(ConfigError, match="labels in `unsafe`"):
        judge(unsafe=())


def test_a_model_that_cannot_be_had_says_why(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    judge = SafetyCheckerJudge(SafetyCheckerParameters("empty"), context(tmp_path, "checker"))
    with pytest.raises(SourceError, match=r"to load 'empty' .*judge 'checker'"):
        judge.judge(subject())
    with pytest.raises(SourceError, match="package `nopackage`"):
        load_model("j", "one", None, folder, "cpu", (("nopackage", "X"),))


def test_a_file_that_lacks_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    """The library fills missing layers with random numbers and goes on."""
    broken = tmp_path / "one"
    broken.mkdir()
    for path in (folder / "one").iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = load_file(broken / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    judge = ImageClassifierJudge(ImageClassifierParameters("one", ("nudity",)), context(tmp_path))
    with pytest.raises(SourceError, match=r"'classifier.weight'.*random verdicts"):
        judge.judge(subject())


def test_a_guard_runs_here_too(tmp_path: Path) -> None:
    for word in ("unsafe", "safe", "perhaps"):
        save_guard(tmp_path / word, word)
        given = LlavaGuardParameters(
            word, "no red squares", kinds=("image", "text"), dtype="float32", device="cpu", max_tokens=1
        )
        judge = LlavaGuardJudge(given, context(tmp_path))
        for shown in (subject(), subject(text="red squares")):
            found = judge.judge(shown)
            assert found.verdict == (None if word == "perhaps" else word)
            assert found.raw["answer"] == word
    assert found.raw["error"] == "the answer has no rating"
    assert judge.judge(subject(image=b"no image")).verdict is None
    assert judge.kinds == {"image", "text"}
    assert judge.version().startswith("perhaps sha256:")
    assert LlavaGuardJudge(LlavaGuardParameters("guard"), context(tmp_path)).kinds == {"image"}
    with pytest.raises(ConfigError, match="`kinds` of image, text"):
        LlavaGuardParameters("guard", kinds=("video",))
