from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_image, encode_image, read_facts
from forgery_det.core.manifest import Manifest
from forgery_det.recipes.build import collect
from forgery_det.recipes.generate.base import Generator, GeneratorContext
from forgery_det.recipes.generate.job import Job, Outcome
from forgery_det.recipes.generate.pixel_grid import encode_like, pad_to_multiple
from forgery_det.recipes.generate.reconstruct import (
    ReconstructGenerator,
    ReconstructParameters,
    blend,
    original_share,
)
from synth.images import folder_sources, smooth_image, write_images, write_recipe

Build = Callable[..., Any]
PHOTO = smooth_image(3, 45, 37)


def jpeg(image_HWC: np.ndarray[Any, Any], **settings: Any) -> bytes:
    target = BytesIO()
    Image.fromarray(image_HWC).save(target, "jpeg", **settings)
    return target.getvalue()


def run(generator: Generator, job: Build, data: bytes, seed: int = 1) -> Outcome:
    sha256 = sha256_bytes(data)
    one: Job = job(generator, None, seed, image_sha256=sha256)
    ((_, outcome),) = generator.run([one], {sha256: data}.__getitem__)
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "autoencoder"), [("vae", "AutoencoderKL"), ("vq", "VQModel"), ("taesd", "AutoencoderTiny")]
)
def test_through_any_autoencoder(generator: Build, job: Build, model: str, autoencoder: str) -> None:
    data = jpeg(PHOTO, quality=83, subsampling=1)
    made = generator(model, "reconstruct", autoencoder=autoencoder)
    outcome = run(made, job, data)
    facts = read_facts(outcome.data or b"")
    assert (facts.width_px, facts.height_px, facts.jpeg_quality, facts.chroma_subsampling) == (45, 37, 83, "4:2:2")
    assert outcome.provenance["autoencoder"] == autoencoder
    assert outcome.provenance["mean_abs_change"] > 1
    assert outcome.provenance["history"] == "jpeg_tables"
    assert run(made, job, data).data == outcome.data


@pytest.mark.slow
def test_the_class_is_found_without_its_name(generator: Build, job: Build) -> None:
    outcome = run(generator("vae", "reconstruct"), job, encode_image(PHOTO, "png", None))
    assert outcome.provenance["autoencoder"] == "AutoencoderKL"
    assert (outcome.provenance["history"], read_facts(outcome.data or b"").codec) == ("lossless", "png")


@pytest.mark.slow
def test_it_equals_the_autoencoder_of_diffusers(generator: Build, job: Build, tiny: Build) -> None:
    import torch
    from diffusers import AutoencoderKL
    from diffusers.image_processor import VaeImageProcessor

    photo = PHOTO[:32, :40]
    outcome = run(generator("vae", "reconstruct"), job, encode_image(photo, "png", None))
    model, images = AutoencoderKL.from_pretrained(tiny("vae")), VaeImageProcessor()
    with torch.no_grad():
        decoded = model.decode(model.encode(images.preprocess(Image.fromarray(photo))).latent_dist.mode()).sample
    reference = np.asarray(images.postprocess(decoded, output_type="pil")[0])
    assert np.abs(decode_image(outcome.data or b"").image_HWC.astype(int) - reference).max() <= 1


@pytest.mark.slow
def test_the_rest_of_the_pipeline_adds_noise_and_takes_it_away(generator: Build, job: Build) -> None:
    data = jpeg(PHOTO, quality=90)
    weak = run(generator("sdxl", "reconstruct", strength=0.5, steps=2), job, data)
    strong = run(generator("sdxl", "reconstruct", strength=1.0, steps=2), job, data)
    facts = read_facts(weak.data or b"")
    assert (facts.width_px, facts.height_px, facts.jpeg_quality) == (45, 37, 90)
    assert weak.provenance["request"]["strength"] == 0.5
    assert weak.data != strong.data


@pytest.mark.slow
def test_the_original_is_mixed_in(generator: Build, job: Build) -> None:
    data = encode_image(PHOTO, "png", None)
    plain, half = (run(generator("vae", "reconstruct", mix=mix), job, data) for mix in (0.0, 0.5))
    a, b = (decode_image(outcome.data or b"").image_HWC.astype(float) for outcome in (plain, half))
    assert np.abs(b - (a + PHOTO) / 2).max() <= 0.5
    assert half.provenance["original_share"] == 0.5


def test_a_blend_is_rounded_and_none_is_the_reconstruction_itself() -> None:
    a, b = np.full((2, 2, 3), 10, np.uint8), np.full((2, 2, 3), 21, np.uint8)
    assert blend(a, b, 0.0) is b
    assert blend(a, b, 0.5)[0, 0, 0] == 16  # 15.5 to even
    assert blend(a, b, 0.9)[0, 0, 0] == 11


def test_shares_follow_rule_and_probability() -> None:
    fixed = ReconstructParameters(mix=0.4, probability=0.5)
    drawn = [original_share(seed, fixed) for seed in range(2000)]
    assert set(drawn) == {0.0, 0.4}
    assert np.mean(np.array(drawn) > 0) == pytest.approx(0.5, abs=0.05)
    uniform = ReconstructParameters(mix=0.4, mix_rule="uniform")
    shares = np.array([original_share(seed, uniform) for seed in range(2000)])
    assert 0 <= shares.min() < shares.max() <= 0.4
    assert shares.mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_keeps_tables_chroma_and_the_grid_of_its_blocks(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(PHOTO, quality=71, subsampling=2, progressive=True, exif=exif)
    original = decode_image(data)
    alike, history = encode_like(original.image_HWC, data, original.facts)
    again = decode_image(alike)
    with Image.open(BytesIO(data)) as a, Image.open(BytesIO(alike)) as b:
        assert a.quantization == b.quantization  # type: ignore[attr-defined]
        assert a.size == b.size
    names = ("width_px", "height_px", "jpeg_quality", "chroma_subsampling", "progressive", "orientation")
    for name in names:
        assert getattr(again.facts, name) == getattr(original.facts, name)
    assert history == "jpeg_tables"
    # Blocks that lie on the same grid with the same tables quantise to what they were: hardly anything changes.
    change = np.abs(again.image_HWC.astype(int) - original.image_HWC)
    assert change.mean() < 1.5


def test_tables_that_no_quality_makes_are_kept() -> None:
    tables = {0: [1 + index for index in range(64)], 1: [2 + index for index in range(64)]}
    data = jpeg(PHOTO, qtables=tables, subsampling=0)
    alike, _ = encode_like(PHOTO, data, read_facts(data))
    with Image.open(BytesIO(data)) as a, Image.open(BytesIO(alike)) as b:
        assert a.quantization == b.quantization  # type: ignore[attr-defined]
    assert "nonstandard_jpeg_tables" in read_facts(alike).notes


def test_a_cmyk_jpeg_is_refused() -> None:
    target = BytesIO()
    Image.fromarray(PHOTO).convert("CMYK").save(target, "jpeg", quality=60)
    original = decode_image(target.getvalue())
    with pytest.raises(ImageError, match=r"history_unmatched: .*got CMYK"):
        encode_like(original.image_HWC, target.getvalue(), original.facts)


def test_an_original_that_cannot_be_matched_loads_no_model(tmp_path: Path) -> None:
    context = GeneratorContext("vae", "no-such/model", None, tmp_path, tmp_path)
    data = encode_image(PHOTO, "webp", 80)
    job = Job("vae", "reconstruct", "no-such/model", "", None, None, 1, {}, sha256_bytes(data))
    ((_, outcome),) = ReconstructGenerator(ReconstructParameters(), context).run([job], lambda _sha256: data)
    assert (outcome.kind, outcome.detail[:18]) == ("failed", "history_unmatched:")


def test_a_grey_jpeg_stays_grey() -> None:
    target = BytesIO()
    Image.fromarray(PHOTO).convert("L").save(target, "jpeg", quality=60)
    original = decode_image(target.getvalue())
    alike, _ = encode_like(original.image_HWC, target.getvalue(), original.facts)
    assert read_facts(alike).chroma_subsampling == "4:0:0"


@pytest.mark.parametrize(("codec", "quality"), [("png", None), ("webp", None)])
def test_lossless_originals_stay_lossless(codec: str, quality: int | None) -> None:
    data = encode_image(PHOTO, codec, quality)
    alike, history = encode_like(PHOTO, data, read_facts(data))
    assert (history, decode_image(alike).image_HWC.tolist()) == ("lossless", PHOTO.tolist())


@pytest.mark.parametrize("codec", ["webp", "avif"])
def test_what_cannot_be_matched_is_refused(codec: str) -> None:
    data = encode_image(PHOTO, codec, 80)
    with pytest.raises(ImageError, match=f"history_unmatched: .*got {codec}"):
        encode_like(PHOTO, data, read_facts(data))


@pytest.mark.parametrize(("height", "width", "multiple"), [(1, 1, 8), (8, 16, 8), (37, 45, 16), (3, 100, 32)])
def test_padding_is_cut_back_to_the_same_pixels(height: int, width: int, multiple: int) -> None:
    image = np.arange(height * width * 3, dtype=np.uint32).astype(np.uint8).reshape(height, width, 3)
    padded = pad_to_multiple(image, multiple)
    assert padded.shape[0] % multiple == padded.shape[1] % multiple == 0
    assert padded.shape[0] - height < multiple
    assert (padded[:height, :width] == image).all()


@pytest.mark.slow
def test_a_recipe_of_pairs(tiny: Build, tmp_path: Path) -> None:
    write_images(tmp_path / "images" / "real", 6, generated=False)
    (tmp_path / "images" / "real" / "lossy.webp").write_bytes(encode_image(smooth_image(77), "webp", 80))
    photos = folder_sources(tmp_path / "images")[0]
    generator = {"name": "vae", "kind": "reconstruct", "model": str(tiny("vae")), "paradigm": "reconstruction",
                 "decoder": "vae", "mix": 0.3, "mix_rule": "uniform"}  # fmt: skip
    pairs = {"id": "pairs", "kind": "generate", "images": "photos", "generator": generator, "licence": "CC0"}
    recipe = write_recipe(tmp_path / "r" / "recipe.yaml", [photos, pairs], dedup={"phash_distance": 4})
    collect(recipe, tmp_path / "out", cache=tmp_path / "cache")
    frame = Manifest.load(tmp_path / "out").frame
    both = frame.group_by("content_id").agg(pl.col("label").sort(), pl.col("split").n_unique(), pl.len())
    paired = both.filter(pl.col("len") == 2)
    assert paired.height == 6
    assert paired["label"].to_list() == [[0, 1]] * 6
    assert set(paired["split"]) == {1}
    quarantine = pl.read_parquet(tmp_path / "out" / "quarantine.parquet")
    assert quarantine.select("source", "key", "reason").rows() == [("pairs", "lossy.webp/0", "generation_failed")]
    origins = pl.read_parquet(tmp_path / "out" / "origins.parquet").filter(pl.col("key") != "lossy.webp")
    # Before alignment too, a pair differs in nothing that a file says about itself.
    assert origins.group_by("source").agg(pl.col("codec", "jpeg_quality", "width_px").unique())[
        "jpeg_quality"
    ].to_list() == [[92], [92]]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"mix": 1.0}, "Expected `mix`, the share of the original, in [0, 1), got 1.0"),
        ({"mix_rule": "random"}, "Unknown mix_rule 'random'"),
        ({"strength": 0.5, "subfolder": "vae"}, "Expected `strength` with a whole pipeline"),
        ({"steps": 4}, "Expected `strength` where `steps`, `prompt` or `guidance` are given"),
        ({"history": "like_inpt"}, "Unknown history 'like_inpt': did you mean 'like_input'?"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ReconstructParameters(**keys)
    assert text in str(caught.value)
