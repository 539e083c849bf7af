"""A bundle whose numbers can be worked out by hand, made without torch, and an ASGI client for bodies of any shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from forgery_det.core.artefacts import sha256_bytes, sha256_file, write_json
from forgery_det.core.image_io import encode_image
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, ResizeShort
from synth.images import smooth_image

SIDE = 64
GEOMETRY = Preprocess((ResizeShort(SIDE), CenterCrop(SIDE, SIDE)))


def brightness_bundle(folder: Path) -> Path:
    """Write a bundle with `logit = 10 * (mean of the view - 0.5)`: black -5, grey 0, white 5."""
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "half"], ["centred"]),
        helper.make_node("Mul", ["centred", "slope"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("slope", TensorProto.FLOAT, [], [10.0]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in ("logit", "score")]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "brightness", [image], outputs, constants)
    # Plain strings and an old IR version: any onnxruntime that we accept reads it.
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "model.onnx"
    )
    picture = smooth_image(1)
    data = encode_image(picture, "png", None)
    (folder / "golden" / "waves.png").write_bytes(data)
    logit = 10 * (float(GEOMETRY(picture).mean()) / 255 - 0.5)
    golden = {"file": "waves.png", "sha256": sha256_bytes(data), "logit": logit, "score": 1 / (1 + np.exp(-logit))}
    write_json(folder / "golden" / "golden.json", [golden])
    write_json(folder / "bundle.json", _document(sha256_file(folder / "model.onnx")))
    return folder


def _document(sha256: str) -> dict[str, Any]:
    onnx_format = {"file": "model.onnx", "runtime": "onnxruntime", "precision": "fp32", "sha256": sha256}
    return {
        "format": 1, "name": "brightness", "version": "0123456789ab", "tool_version": "0.0",
        "labels": {"0": "real", "1": "generated"}, "higher_logit": "generated",
        "preprocess": GEOMETRY.to_json(), "max_pixels": 100_000_000,
        "input": {"name": "image", "shape": [None, 3, SIDE, SIDE], "dynamic_size": False, "views": None},
        "outputs": ["logit", "score"], "temperature": None,
        "operating_points": {"fpr_5pct": 1.0, "balanced": 0.0}, "default_operating_point": "fpr_5pct",
        "abstention": {"alpha": 0.1, "low": -0.5, "high": 0.5},
        "formats": {"onnx": onnx_format}, "default_format": "onnx", "licence": "CC0-1.0",
    }  # fmt: skip


def plain_png(level: int, side_px: int = 80) -> bytes:
    """A picture of one grey level; its logit is `10 * (level / 255 - 0.5)`."""
    return encode_image(np.full((side_px, side_px, 3), level, np.uint8), "png", None)


def form(files: Iterable[tuple[str, bytes]], boundary: str = "edge") -> bytes:
    """A multipart body with the field `files`."""
    parts = []
    for name, data in files:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


FORM_TYPE = "multipart/form-data; boundary=edge"


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[Any]:
    """Run the application's lifespan."""
    async with app.router.lifespan_context(app):
        yield app


async def post(
    app: Any,
    chunks: Iterable[bytes | float | Callable[[], None]] = (),
    *,
    path: str = "/v1/predict",
    query: str = "",
    content_type: str = FORM_TYPE,
    headers: dict[str, str] | None = None,
    announce: int | None = None,
    leave_after_s: float | None = None,
) -> Answer:
    """Send one POST whose body comes in chunks; a number among them is a pause in seconds, a function is called.

    Args:
        announce: Content-Length; None sends a chunked body.
        leave_after_s: The client closes the connection this long after the last chunk.
    """
    answer = Answer()
    left = list(chunks)
    finished = asyncio.Event()
    sent = {"content-type": content_type} | (headers or {})
    sent |= {"transfer-encoding": "chunked"} if announce is None else {"content-length": str(announce)}

    async def receive() -> dict[str, Any]:
        while left and not isinstance(left[0], bytes):
            step = left.pop(0)
            await asyncio.sleep(step) if isinstance(step, float) else step()
        if left:
            chunk = left.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(left)}
        if leave_after_s is None:
            await finished.wait()
        else:
            await asyncio.sleep(leave_after_s)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            if not message.get("more_body", False):
                finished.set()

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return answer
