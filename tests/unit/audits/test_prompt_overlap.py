from __future__ import annotations

import numpy as np
import pytest

from forgery_det.audits import AuditFinding, audit
from forgery_det.audits.prompt_overlap import jaccard, normalised, similar_prompts
from forgery_det.core.errors import ConfigError
from synth.planted import Planter


def findings(planter: Planter, **options: float) -> dict[str, AuditFinding]:
    return {one.slice: one for one in audit(planter.build(), only=["prompt_overlap"], **options).findings}


def test_different_prompts_pass(planter: Planter) -> None:
    assert {one.level for one in findings(planter).values()} == {"pass"}


def test_the_same_text_in_other_dress_warns(planter: Planter) -> None:
    planter.plan[47]["prompt"] = "  " + planter.plan[1]["prompt"].upper().replace(" ", ", ") + "!"
    found = findings(planter)["match=text"]
    # A quarter of the 24 generated images is val, a quarter test.
    assert (found.level, found.value, found.n) == ("warn", 1, 12)
    assert found.rows[0]["similarity"] == 1.0
    assert found.rows[0]["split"] == "test"
    assert found.rows[0]["earlier_prompt"] == planter.plan[1]["prompt"]


def test_nearly_the_same_text_warns_above_the_limit(planter: Planter) -> None:
    words = [f"w{number}" for number in range(9)]
    planter.plan[1]["prompt"], planter.plan[47]["prompt"] = " ".join(words), " ".join([*words, "more"])
    assert findings(planter)["match=text"].rows[0]["similarity"] == 0.9
    assert findings(planter, prompt_similarity=0.95)["match=text"].level == "pass"


def test_a_prompt_within_one_split_is_no_overlap(planter: Planter) -> None:
    planter.plan[3]["prompt"] = planter.plan[1]["prompt"]
    planter.plan[3]["prompt_id"] = planter.plan[1]["prompt_id"]
    assert {one.level for one in findings(planter).values()} == {"pass"}


def test_a_prompt_id_in_two_splits_warns(planter: Planter) -> None:
    planter.plan[47]["prompt_id"] = planter.plan[1]["prompt_id"]
    found = findings(planter)
    assert (found["match=prompt_id"].level, found["match=prompt_id"].value) == ("warn", 1)
    assert found["match=prompt_id"].rows == ({"prompt_id": "prompt-1", "split": "test", "images": 1},)
    assert found["match=text"].level == "pass"


def test_without_prompts_nothing_is_said(planter: Planter) -> None:
    for entry in planter.plan:
        entry.update({"prompt": None, "prompt_id": None})
    found = findings(planter)
    assert {one.level for one in found.values()} == {"not_estimable"}
    assert found["match=text"].detail == "No image has a prompt, so nothing can be said about shared prompts."


@pytest.mark.parametrize("limit", [0.5, 0.6, 0.75, 0.8, 0.9, 1.0])
def test_the_index_finds_what_comparing_all_pairs_finds(limit: float) -> None:
    rng = np.random.default_rng(0)
    known = sorted({" ".join(rng.choice(list("abcdefghij"), rng.integers(3, 9))) for _ in range(150)})
    texts = sorted({" ".join(rng.choice(list("abcdefghij"), rng.integers(3, 9))) for _ in range(150)} - set(known))
    found = {match.text: match.similarity for match in similar_prompts(texts, known, limit)}
    expected = {}
    for text in texts:
        words = frozenset(text.split())
        sizes = [jaccard(words, frozenset(other.split())) for other in known if len(set(other.split())) >= 4]
        if len(words) >= 4 and max(sizes) >= limit:
            expected[text] = max(sizes)
    assert expected
    assert found == expected


def test_short_prompts_count_only_when_equal() -> None:
    assert similar_prompts(["a red car"], ["a red car now"], 0.6) == []
    assert [match.other for match in similar_prompts(["a red car"], ["a red car"], 0.6)] == ["a red car"]


def test_normalisation_folds_case_width_and_punctuation() -> None:
    assert normalised("\uff21  CAT\u2019s Straße…\n(4K)") == "a cat s strasse 4k"


def test_a_wrong_limit_is_told(planter: Planter) -> None:
    with pytest.raises(ConfigError, match=r"Expected `prompt_similarity` in \(0, 1\], got 0 \(audit\)"):
        findings(planter, prompt_similarity=0)
