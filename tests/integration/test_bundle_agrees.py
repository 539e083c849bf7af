"""The bundle answers as the checkpoint that it was exported from, on files of every odd kind."""

from __future__ import annotations

import csv
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import forgery_det
from forgery_det.cli import main
from forgery_det.core.image_io import decode_file
from forgery_det.detectors.checkpoint import load_checkpoint
from synth.images import smooth_image

TOLERANCE = 1e-4


def _plain(width: int = 150, height: int = 110) -> Image.Image:
    return Image.fromarray(smooth_image(3, width, height))


def _save(path: Path, image: Image.Image, **options: object) -> None:
    image.save(path, **options)


def _sixteen_bit(path: Path) -> None:
    """Pillow writes no 16-bit RGB PNG, so this one is put together by hand."""
    image = np.asarray(_plain(), np.uint16).astype(">u2") * 257 + 100
    rows = b"".join(b"\0" + row.tobytes() for row in image)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def _rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _save(path, _plain(), quality=95, exif=exif)


def _alpha(path: Path) -> None:
    image = _plain().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    _save(path, image)


def _animation(path: Path) -> None:
    frames = [_plain(), _plain().rotate(90)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)


KINDS: dict[str, Callable[[Path], None]] = {
    "cmyk.jpg": lambda path: _save(path, _plain().convert("CMYK"), quality=95),
    "rotated.jpg": _rotated,
    "grey.jpg": lambda path: _save(path, _plain().convert("L"), quality=50),
    "progressive.jpg": lambda path: _save(path, _plain(), quality=80, progressive=True),
    "16bit.png": _sixteen_bit,
    "alpha.png": _alpha,
    "palette.png": lambda path: _save(path, _plain().quantize(16)),
    "one_bit.png": lambda path: _save(path, _plain().convert("1")),
    "animation.gif": _animation,
    "animation.webp": _animation,
    "lossless.webp": lambda path: _save(path, _plain(), lossless=True),
    "picture.avif": lambda path: _save(path, _plain(), quality=60),
    "picture.tif": lambda path: _save(path, _plain(), compression="tiff_lzw"),
    "tiny.png": lambda path: _save(path, _plain(3, 2)),
    "one_pixel.png": lambda path: _save(path, _plain(1, 1)),
    "strip.png": lambda path: _save(path, _plain(3000, 2)),
    "large.jpg": lambda path: _save(path, _plain(2200, 1700), quality=90),
}


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("odd")
    for name, make in KINDS.items():
        make(folder / name)
    return [folder / name for name in KINDS]


@pytest.mark.slow
def test_logits_agree_on_odd_files(tiny_bundle: Path, odd_files: list[Path]) -> None:
    detector = load_checkpoint(tiny_bundle.parent / "model.ckpt").detector
    answers = list(forgery_det.Predictor(tiny_bundle, threads=1, batch_size=5).predict(odd_files))
    assert [Path(a.key).name for a in answers if a.error] == []
    for path, answer in zip(odd_files, answers, strict=True):
        eager = detector.logit(decode_file(path).image_HWC)
        assert answer.logit == pytest.approx(eager, abs=TOLERANCE * max(1, abs(eager))), path.name
    assert len({round(answer.logit or 0, 3) for answer in answers}) > 8  # the files differ, and so must the answers


def _table(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, str]]:
    assert main(["predict", *words, "--format", "csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))


@pytest.mark.slow
def test_predict_gives_the_same_from_bundle_and_checkpoint(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = str(tiny_bundle.parent / "dataset" / "images")
    of_checkpoint = _table(capsys, str(tiny_bundle.parent / "model.ckpt"), images, "--device", "cpu")
    of_bundle = _table(capsys, str(tiny_bundle), images, "--threads", "1")
    assert list(of_checkpoint[0]) == ["path", "logit", "score", "decision", "error"]
    assert list(of_bundle[0]) == ["path", "logit", "score", "decision", "error", "warnings"]
    assert len(of_bundle) == 64
    for one, other in zip(of_checkpoint, of_bundle, strict=True):
        assert one["path"] == other["path"]
        assert float(one["logit"]) == pytest.approx(float(other["logit"]), abs=TOLERANCE)
        assert float(one["score"]) == pytest.approx(float(other["score"]), abs=TOLERANCE)
        assert other["decision"] in (one["decision"], "uncertain")


@pytest.mark.slow
def test_int8_answers_are_near_and_its_self_test_knows(tiny_bundle: Path) -> None:
    int8 = forgery_det.Predictor(tiny_bundle, format="onnx_int8", threads=1)
    tested = int8.self_test()
    assert tested.passed, tested.explain()
    assert tested.worst > TOLERANCE  # it is another model, and the fp32 tolerance would not do
    assert forgery_det.Predictor(tiny_bundle, threads=1).self_test().worst <= TOLERANCE
