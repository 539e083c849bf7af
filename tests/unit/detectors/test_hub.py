"""`hf://` addresses against a server on this machine that speaks the hub's protocol for files."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
import torch

from forgery_det.core.errors import WeightsError
from forgery_det.detectors import create_detector
from forgery_det.detectors.checkpoint import load_checkpoint, save_checkpoint
from forgery_det.detectors.hub import HubFile, local_file
from forgery_det.training.module import DetectorModule

COMMIT = "a" * 40
TINY: dict[str, Any] = {"backbone": "test_resnet", "backbone_weights": None, "image_size_px": 64}


class Hub(ThreadingHTTPServer):
    """Files by (repository, revision, path), and the answers it gives instead of some of them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.cut: set[str] = set()
        self.asked: list[str] = []

    def put(self, repository: str, path: str, data: bytes, revision: str = "main") -> None:
        self.files[f"/{repository}/resolve/{revision}/{path}"] = data

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.replace(f"/resolve/{COMMIT}/", "/resolve/main/")
        self.server.asked.append(f"{self.command} {self.path}")
        refusal = self.server.refusals.get(path)
        known = {name.split("/resolve/")[0] for name in self.server.files}
        if refusal is None and path not in self.server.files:
            refusal = (404, "EntryNotFound" if path.split("/resolve/")[0] in known else "RepoNotFound")
        if refusal is not None:
            self.send_response(refusal[0])
            if refusal[1]:
                self.send_header("X-Error-Code", refusal[1])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = self.server.files[path]
        start = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0]) if "Range" in self.headers else 0
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if with_body:
            self.wfile.write(data[start : len(data) // 2] if path in self.server.cut else data[start:])
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay silent."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    # It waits between tries, longer each time.
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda _: None)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = create_detector("timm_classifier", **TINY)
    save_checkpoint(tmp_path / "made.ckpt", detector)
    return tmp_path / "made.ckpt"


def test_a_published_checkpoint_loads_by_its_address(hub: Hub, checkpoint: Path) -> None:
    hub.put("someone/detector", "weights/best.ckpt", checkpoint.read_bytes())
    address = "hf://someone/detector/weights/best.ckpt"
    expected = load_checkpoint(checkpoint).detector.state_dict()
    by_name = create_detector("timm_classifier", weights=address)
    trained_on = DetectorModule("timm_classifier", weights=address)
    collapsed = load_checkpoint(Path(address))  # what pathlib makes of it: one slash
    for detector in (by_name, trained_on.detector, collapsed.detector):
        torch.testing.assert_close(detector.state_dict(), expected, rtol=0, atol=0)
    assert sum(line.startswith("GET") for line in hub.asked) == 1, "a file in the cache is not fetched again"


def test_a_backbone_comes_from_an_address(hub: Hub, tmp_path: Path) -> None:
    backbone = create_detector("frozen_probe", **TINY).backbone.state_dict()
    published = create_detector("timm_classifier", **TINY)
    torch.save(published.backbone.state_dict(), tmp_path / "backbone.pth")
    hub.put("lab/backbone", "backbone.pth", (tmp_path / "backbone.pth").read_bytes())
    made = create_detector("frozen_probe", **TINY | {"backbone_weights": "hf://lab/backbone/backbone.pth"})
    name = next(iter(backbone))
    torch.testing.assert_close(made.backbone.state_dict()[name], published.backbone.state_dict()[name])


def test_a_pinned_file_needs_the_hub_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("someone/detector", "a.pth", b"weights")
    pinned = f"hf://someone/detector@{COMMIT}/a.pth"
    assert local_file(pinned).read_bytes() == b"weights"
    hub.asked.clear()
    assert local_file(pinned).read_bytes() == b"weights"
    assert not hub.asked
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert local_file(pinned).read_bytes() == b"weights"


def test_revisions_reach_the_hub_with_their_slashes(hub: Hub) -> None:
    hub.put("someone/detector", "a.pth", b"proposed", revision="refs%2Fpr%2F1")
    assert local_file("hf://someone/detector@refs%2Fpr%2F1/a.pth").read_bytes() == b"proposed"
    assert (
        str(HubFile.parse("hf://someone/detector@refs%2Fpr%2F1/a.pth")) == "hf://someone/detector@refs%2Fpr%2F1/a.pth"
    )


def test_what_the_hub_refuses_is_told(hub: Hub) -> None:
    hub.put("someone/detector", "a.pth", b"weights")
    for address, refusal, text in (
        ("hf://nobody/nothing/a.pth", None, r"Expected a repository nobody/nothing, got none of that name"),
        ("hf://someone/detector/b.pth", None, r"Expected a file b\.pth in someone/detector at its default branch, got"),
        ("hf://someone/detector@v9/a.pth", (404, "RevisionNotFound"), r"Expected a revision v9 of someone/detector"),
        ("hf://someone/detector/gated.pth", (401, "GatedRepo"), r"got a gated repository\. Accept its terms"),
        ("hf://someone/detector/mine.pth", (401, ""), r"access to .*mine\.pth, got .*log in with `hf auth login`"),
        ("hf://someone/detector/busy.pth", (429, ""), r"no usable answer from the hub \(.*429.*not in the cache"),
        ("hf://someone/detector/down.pth", (500, ""), r"no usable answer from the hub \(.*500.*give its path"),
        ("hf://someone/detector/tea.pth", (418, ""), r"Expected to download hf://someone/detector/tea\.pth, got"),
    ):
        if refusal is not None:
            wanted = HubFile.parse(address)
            hub.refusals[f"/{wanted.repository}/resolve/{wanted.revision or 'main'}/{wanted.file}"] = refusal
        with pytest.raises(WeightsError, match=text):
            create_detector("timm_classifier", weights=address, **TINY)


def test_a_download_that_breaks_off_leaves_nothing_that_counts(hub: Hub, tmp_path: Path, checkpoint: Path) -> None:
    hub.put("someone/detector", "best.ckpt", checkpoint.read_bytes())
    hub.cut.add("/someone/detector/resolve/main/best.ckpt")
    with pytest.raises(WeightsError, match=r"Expected to download hf://someone/detector/best\.ckpt, got"):
        load_checkpoint("hf://someone/detector/best.ckpt")
    assert not list((tmp_path / "cache").rglob("snapshots/*/best.ckpt"))
    hub.cut.clear()
    assert load_checkpoint("hf://someone/detector/best.ckpt").facts.detector == "timm_classifier"


def test_offline_with_nothing_cached_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", nobody)
    text = r"hf://a/b/c\.pth, got no usable answer.*not in the cache\. Connect, or set HF_ENDPOINT.*give its path\."
    with pytest.raises(WeightsError, match=text):
        local_file("hf://a/b/c.pth")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=text):
        local_file("hf://a/b/c.pth")


@pytest.mark.parametrize("address", ["hf://", "hf://owner/name", "hf://owner/name/", "hf://owner//file", "hf:///a/b/c"])
def test_a_malformed_address_is_told(address: str) -> None:
    with pytest.raises(
        WeightsError, match=r"Expected an address of the form hf://owner/name\[@revision\]/path/of/file"
    ):
        local_file(address)


def test_an_unsafe_file_is_refused_wherever_it_comes_from(hub: Hub, tmp_path: Path) -> None:
    torch.save({"state": Path("x")}, tmp_path / "unsafe.pth")
    hub.put("someone/detector", "unsafe.pth", (tmp_path / "unsafe.pth").read_bytes())
    with pytest.raises(WeightsError, match=r"could run any code.*safetensors\.torch\.save_file"):
        create_detector("timm_classifier", weights="hf://someone/detector/unsafe.pth", **TINY)
