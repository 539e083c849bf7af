"""Push: Parquet that loads as images anywhere, a card that the hub reads, and an upload that survives faults."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import datasets
import polars as pl
import pytest
import yaml
from huggingface_hub import DatasetCard
from PIL import Image
from pyarrow import parquet

from forgery_det.cli import main
from forgery_det.core.artefacts import sha256_bytes, sha256_file
from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.manifest import Manifest
from forgery_det.recipes.build import collect
from forgery_det.recipes.push import PushFolder, prepare, upload
from forgery_det.recipes.push import tables as push_tables
from synth.hub_server import Hub, running_hub
from synth.images import folder_sources, tree, write_images, write_recipe

# huggingface_hub hands files to its own HTTP client by a keyword that the client has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

SMALL_MB = 0.004
REPO = "someone/pictures"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_images(root / "real", 6, generated=False, width_px=64)
    write_images(root / "fake", 6, generated=True, width_px=64, codec="png")
    recipe = write_recipe(root / "recipe.yaml", folder_sources(root), citation="Nobody | 2026")
    return collect(recipe, root / "dataset", shard_mb=1).dataset


@pytest.fixture(scope="module")
def folder(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> PushFolder:
    return prepare(dataset, REPO, out=tmp_path_factory.mktemp("push"), file_mb=SMALL_MB)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    # The hub of the tests speaks the plain protocol; the chunked storage of the public one has a server of its own.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", "hf_loopback")
    with running_hub() as hub:
        yield hub


def test_the_folder_holds_every_image_and_row(dataset: Path, folder: PushFolder) -> None:
    frame = Manifest.load(dataset).frame
    data = [name for name in folder.files if name.endswith(".parquet") and name.startswith("data/")]
    assert len(data) > 3
    read = pl.concat([pl.read_parquet(folder.path / name) for name in data])
    rows = read.drop("image").sort("image_id")
    assert rows.equals(frame.drop("path", "split").sort("image_id").select(rows.columns))
    for image, image_id in read.select("image", "image_id").iter_rows():
        assert sha256_bytes(image["bytes"]) == image_id
        assert image["path"] == f"{image_id}.webp"


def test_datasets_loads_the_folder_as_images(
    dataset: Path, folder: PushFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    by_split = datasets.load_dataset(str(folder.path), cache_dir=str(tmp_path / "cache"))
    frame = Manifest.load(dataset).frame
    assert {name: part.num_rows for name, part in by_split.items()} == dict(frame["split"].value_counts().iter_rows())
    train = by_split["train"]
    assert train.features["label"].names == ["real", "generated"]
    assert isinstance(train.features["image"], datasets.Image)
    first = train[0]
    assert isinstance(first["image"], Image.Image)
    row = frame.filter(image_id=first["image_id"]).row(0, named=True)
    assert first["image"].size == (row["width_px"], row["height_px"])
    assert first["label"] == row["label"]
    assert first["release_date"] == (row["release_date"] if row["label"] else None)
    assert row["label"] == 0 or first["release_date"] == date(2020, 1, 31)


def test_a_single_file_says_what_its_columns_are(folder: PushFolder) -> None:
    features = datasets.Features.from_arrow_schema(parquet.read_schema(folder.path / folder.files[0]))
    assert isinstance(features["image"], datasets.Image)
    assert features["label"].int2str(1) == "generated"
    groups = parquet.ParquetFile(folder.path / folder.files[0]).metadata
    assert groups.num_rows / groups.num_row_groups <= push_tables.ROWS_A_GROUP


def test_the_card_tells_the_hub_and_the_reader(dataset: Path, folder: PushFolder) -> None:
    card = DatasetCard.load(folder.path / "README.md")
    front = card.data.to_dict()
    assert front["license"] == "cc0-1.0"
    assert front["task_categories"] == ["image-classification"]
    assert front["size_categories"] == ["n<1K"]
    splits = [one["split"] for one in front["configs"][0]["data_files"]]
    assert set(splits) == set(Manifest.load(dataset).frame["split"])
    described = json.loads((dataset / "dataset.json").read_text())
    text = card.text
    for fact in ("recipe_sha256", "manifest_digest", "tool_version"):
        assert described[fact] in text
    counts = described["counts"]["split_label"]
    assert f"| train | {counts.get('train,0', 0)} | {counts.get('train,1', 0)} |" in text
    assert "| checker-1 | 6 |" in text
    assert "Nobody | 2026" in text
    assert f'load_dataset("{REPO}"' in text


def test_croissant_describes_the_files(folder: PushFolder) -> None:
    card = json.loads((folder.path / "croissant.json").read_text())
    *files, together = card["distribution"]
    assert {one["@id"] for one in files} == {name for name in folder.files if name.startswith("data/")}
    for one in files:
        assert one["sha256"] == sha256_file(folder.path / one["contentUrl"])
    assert len(list(folder.path.glob(together["includes"]))) == len(files)
    fields = {field["name"] for field in card["recordSet"][0]["field"]}
    assert fields == set(pl.read_parquet_schema(folder.path / folder.files[0]))


def test_prompts_and_masks_go_along(dataset: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(dataset, tmp_path / "dataset")
    (whole / "masks" / "ab").mkdir(parents=True)
    (whole / "masks" / "ab" / "ab01.png").write_bytes(b"white")
    (whole / "prompts.parquet").write_bytes(b"table")
    folder = prepare(whole, REPO, out=tmp_path / "push")
    assert {"masks.parquet", "prompts.parquet"} < set(folder.files)
    assert pl.read_parquet(folder.path / "masks.parquet").rows() == [("masks/ab/ab01.png", b"white")]
    assert (folder.path / "prompts.parquet").read_bytes() == b"table"


def test_preparing_goes_on_where_it_stopped(
    dataset: Path, folder: PushFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    original = push_tables._write

    def killed(manifest: Manifest, file: push_tables.DataFile, path: Path) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file.path)
        original(manifest, file, path)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(push_tables, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(dataset, REPO, out=out, file_mb=SMALL_MB)
    kept = {name: (out / name).stat().st_mtime_ns for name in written}
    prepare(dataset, REPO, out=out, file_mb=SMALL_MB)
    assert tree(out) == tree(folder.path)
    assert {name: (out / name).stat().st_mtime_ns for name in written} == kept
    assert prepare(dataset, REPO, out=out, file_mb=1).files != folder.files
    stale = set(folder.files) - {str(path.relative_to(out)) for path in out.rglob("*")}
    assert stale


def test_a_folder_with_other_files_is_refused(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="Expected a new or empty folder"):
        prepare(dataset, REPO, out=tmp_path)
    with pytest.raises(ConfigError, match="Expected `repo` as owner/name, got 'pictures'"):
        prepare(dataset, "pictures")
    with pytest.raises(ConfigError, match="Expected a finished dataset"):
        prepare(tmp_path, REPO)


def test_an_upload_is_one_commit_of_the_folder(folder: PushFolder, hub: Hub) -> None:
    address = upload(folder, endpoint=hub.address)
    assert address.startswith(f"{hub.address}/datasets/{REPO}/commit/")
    held = hub.repos[REPO]
    assert set(held) == {*folder.files, ".gitattributes"}
    for name in folder.files:
        assert held[name] == (folder.path / name).read_bytes()
    assert hub.private[REPO]
    assert sum("/commit/" in path for _, path in hub.requests) == 1


def test_an_upload_survives_a_busy_hub(folder: PushFolder, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    hub.retry_after_s = 7
    hub.faults = {"/api/repos/create": [503], "/lfs/": [500, 429], f"/api/datasets/{REPO}/commit/": [429, 503]}
    upload(folder, endpoint=hub.address)
    assert not any(hub.faults.values())
    assert waits.count(7) == 3
    assert set(folder.files) < set(hub.repos[REPO])


def test_after_an_interruption_only_the_rest_is_sent(dataset: Path, folder: PushFolder, hub: Hub) -> None:
    hub.faults = {f"/api/datasets/{REPO}/commit/": [403]}
    with pytest.raises(
        SourceError, match=f"Expected to push to '{REPO}', got: (?s:.*)403(?s:.*) run the same command again"
    ):
        upload(folder, endpoint=hub.address)
    assert set(hub.repos[REPO]) == {".gitattributes"}
    sent = [path for method, path in hub.requests if method == "PUT"]
    assert sent
    hub.requests.clear()
    upload(folder, endpoint=hub.address)
    assert not [path for method, path in hub.requests if method == "PUT"]
    assert set(folder.files) < set(hub.repos[REPO])


def test_the_next_version_takes_the_place_of_the_last(
    dataset: Path, folder: PushFolder, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(folder, endpoint=hub.address)
    words = ["push", str(dataset), "--repo", REPO, "--out", str(tmp_path), "--endpoint", hub.address]
    assert main([*words, "--dry_run"]) == 0
    assert set(folder.files) < set(hub.repos[REPO])
    assert main(words) == 0
    parquet = {name for name in hub.repos[REPO] if name.startswith("data/")}
    assert parquet == {f"data/{path.name}" for path in (tmp_path / "data").iterdir()}
    told = capsys.readouterr().out
    assert "Licences: CC0 (12)" in told
    assert "Pushed: " in told


def test_a_token_is_never_written(dataset: Path, hub: Hub, tmp_path: Path) -> None:
    upload(prepare(dataset, REPO, out=tmp_path), endpoint=hub.address)
    assert not any(b"hf_loopback" in data for data in tree(tmp_path).values())


def test_a_damaged_image_is_named(dataset: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(dataset)
    wrong = Manifest(
        manifest.frame.with_columns(image_id=pl.lit("0" * 63) + pl.int_range(pl.len()).cast(str).str.head(1)),
        manifest.root,
    )
    files = push_tables.plan_files(wrong, 10**6)
    with pytest.raises(ConfigError, match="Expected the bytes of image 0000"):
        push_tables.write_files(wrong, files, tmp_path, lambda _: None)


def test_the_front_matter_is_yaml(folder: PushFolder) -> None:
    text = (folder.path / "README.md").read_text()
    front = yaml.safe_load(io.StringIO(text.split("---\n")[1]))
    assert next(iter(front)) == "license"
