from __future__ import annotations

import polars as pl
import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.evaluation.slices import make_slices, prompt_bins

SEEN = frozenset({"sd-1", "flux-1"})


def test_each_slice_of_fakes_is_set_against_all_real_images(judged: pl.DataFrame) -> None:
    n_real = judged.filter(pl.col("label") == 0).height
    for part in make_slices(judged, SEEN):
        rows = judged[part.row_N]
        assert rows.filter(pl.col("label") == 1).height == part.n_generated, part.key
        assert rows.filter(pl.col("label") == 0).height == part.n_real, part.key
        assert part.n_real == n_real


def test_keys_and_order(judged: pl.DataFrame) -> None:
    assert [part.key for part in make_slices(judged, SEEN)] == [
        "overall", "exposure=seen", "exposure=held_out",
        "generator=flux-1", "generator=janus-1", "generator=rare-1", "generator=sd-1",
        "paradigm=diffusion", "paradigm=gan", "paradigm=mllm",
        "decoder=pixel", "decoder=vae", "decoder=vq",
        "prompt_words=1-20", "prompt_words=21-60", "prompt_words=61-150", "prompt_words=151+",
    ]  # fmt: skip


def test_members_are_those_that_a_filter_finds(judged: pl.DataFrame) -> None:
    parts = {part.key: part for part in make_slices(judged, SEEN)}
    rules = {
        "exposure=held_out": pl.col("generator").is_in(["janus-1", "rare-1"]),
        "generator=sd-1": pl.col("generator") == "sd-1",
        "paradigm=diffusion": pl.col("paradigm") == "diffusion",
        "decoder=vq": pl.col("decoder") == "vq",
        "prompt_words=21-60": (pl.col("prompt_words") >= 21) & (pl.col("prompt_words") <= 60),
        "prompt_words=151+": pl.col("prompt_words") > 150,
    }
    for key, rule in rules.items():
        expected = set(judged.filter((pl.col("label") == 1) & rule)["image_id"])
        rows = judged[parts[key].row_N].filter(pl.col("label") == 1)
        assert set(rows["image_id"]) == expected, key
    assert parts["prompt_words=151+"].n_generated == 0


def test_fakes_without_a_prompt_are_in_no_prompt_bin(judged: pl.DataFrame) -> None:
    in_bins = sum(part.n_generated for part in make_slices(judged, None) if part.group == "prompt_words")
    assert in_bins == judged.filter((pl.col("label") == 1) & pl.col("prompt").is_not_null()).height
    assert in_bins < judged.filter(pl.col("label") == 1).height


def test_exposure_of_slices(judged: pl.DataFrame) -> None:
    exposure = {part.key: part.exposure for part in make_slices(judged, frozenset({"sd-1"}))}
    assert exposure["generator=sd-1"] == "seen"
    assert exposure["generator=flux-1"] == "held_out"
    assert exposure["paradigm=diffusion"] == "all"  # one of each


def test_when_nobody_knows_nothing_is_held_out(judged: pl.DataFrame) -> None:
    parts = make_slices(judged, None)
    assert {part.exposure for part in parts} == {"all"}
    assert not [part for part in parts if part.key.startswith("exposure=")]


def test_prompt_bins_cover_every_length_once() -> None:
    bins = prompt_bins([20, 60, 150])
    for words in range(1, 400):
        assert sum(low <= words and (high is None or words <= high) for _, low, high in bins) == 1


@pytest.mark.parametrize("last", [[], [0, 20], [20, 20], [60, 20], [-5]])
def test_bad_bins_are_refused(last: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"Expected `prompt_word_bins` as ascending positive numbers, got \["):
        prompt_bins(last)
