"""The multipart reader: the same files however the bytes are cut, and nothing but a refusal for any bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from forgery_det.serving.http.multipart import MultipartReader, shown_name
from forgery_det.serving.http.problems import RefusalError
from forgery_det.serving.http.settings import Limits
from forgery_det.serving.http.uploads import parse_json
from synth.service import FORM_TYPE, form

FILES = [("a.png", b"one"), ("b.png", b"\r\n--edg\r\n--Edge\r\n-"), ("", b""), ("c", bytes(range(256)))]


def read(body: bytes, cuts: list[int], limits: Limits | None = None) -> list[tuple[str | None, bytes]] | str:
    try:
        reader = MultipartReader(FORM_TYPE, limits or Limits())
        for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
            reader.write(body[start:end])
        return [(upload.name, upload.data) for upload in reader.finish()]
    except RefusalError as refusal:
        return refusal.code


@settings(max_examples=30, deadline=None, database=None)
@given(st.data())
def test_files_come_out_however_the_body_is_cut(data: st.DataObject) -> None:
    body = form(FILES)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=30)))
    assert read(body, cuts) == [(name or None, content) for name, content in FILES]


@settings(max_examples=50, deadline=None, database=None)
@given(st.data())
def test_damaged_bodies_give_files_or_a_refusal(data: st.DataObject) -> None:
    body = bytearray(form(FILES))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    whole = read(bytes(body), [])
    assert isinstance(whole, list) or whole in ("malformed_body", "invalid_request", "too_many_images")
    cut = read(bytes(body), [len(body) // 2])
    assert cut == whole


@settings(max_examples=50, deadline=None, database=None)
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_json_body_gives_images_or_a_refusal(body: bytes) -> None:
    try:
        outcome = "images" if parse_json(body, Limits()) else "none"
    except RefusalError as refusal:
        outcome = refusal.code
    assert outcome in ("images", "malformed_body", "invalid_request")


def test_a_file_that_is_too_large_is_dropped_while_it_arrives() -> None:
    reader = MultipartReader(FORM_TYPE, Limits(max_image_bytes=1000))
    body = form([("large", bytes(100_000)), ("small", b"x")])
    held = 0
    for start in range(0, len(body), 500):
        reader.write(body[start : start + 500])
        held = max(held, len(reader._part.data))
    assert held <= 1000
    large, small = reader.finish()
    assert (large.data, large.error is not None, small.data) == (b"", True, b"x")


@settings(max_examples=40, deadline=None, database=None)
@given(st.text(max_size=400))
def test_names_are_printable_and_short(name: str) -> None:
    shown = shown_name(name)
    assert shown is None or (0 < len(shown) <= 200 and shown.isprintable() and not set("/\\") & set(shown))
