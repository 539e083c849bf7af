"""A hub on loopback: as much of the Hugging Face hub's HTTP protocol as a push of a dataset needs, with faults.

It keeps large files by their sha256, apart from the repository, as the hub does: what was sent before an interruption
need not be sent again, and nothing is in the repository before a commit names it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """The server and what it holds.

    Attributes:
        repos: Repository -> path -> bytes, as of the last commit.
        private: Repository -> whether it was made private.
        objects: sha256 -> bytes of large files.
        faults: Start of a path -> status codes that its next requests get.
        retry_after_s: What a fault says in the header `Retry-After`; None says nothing.
        requests: Method and path of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: dict[str, list[int]] = {}
        self.retry_after_s: int | None = None
        self.requests: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a hub for the time of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        self._dispatch()

    def do_POST(self) -> None:
        self._dispatch()

    def do_PUT(self) -> None:
        self._dispatch()

    def _dispatch(self) -> None:
        body = self._body()
        path = urlsplit(self.path).path
        self.server.requests.append((self.command, path))
        for start, codes in self.server.faults.items():
            if path.startswith(start) and codes:
                self._answer(codes.pop(0), {"error": "a planned fault"}, self.server.retry_after_s)
                return
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif path.startswith("/lfs/"):
            self._store(path.removeprefix("/lfs/"), body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        else:
            self._of_repo(path, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while n_bytes := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(n_bytes))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _of_repo(self, path: str, body: bytes) -> None:
        repo, _, rest = path.removeprefix("/api/datasets/").partition("/")
        name, _, action = rest.partition("/")
        files = self.server.repos.get(f"{repo}/{name}")
        if files is None:
            self._answer(404, {"error": "no such repository"})
        elif action.startswith("preupload/"):
            asked = json.loads(body)["files"]
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(".parquet") else "regular"}
                | {"shouldIgnore": False, "oid": None}
                for one in asked
            ]
            self._answer(200, {"files": modes})
        elif action.startswith("tree/"):
            self._answer(200, [_entry(path, data) for path, data in sorted(files.items())])
        elif action.startswith("commit/"):
            self._commit(f"{repo}/{name}", files, body)
        else:
            self._answer(404, {"error": f"this hub does not know {path}"})

    def _create(self, wanted: dict[str, Any]) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
        if repo in self.server.repos:
            self._answer(409, {"error": "it exists", "url": f"{self.server.address}/datasets/{repo}"})
            return
        self.server.repos[repo] = {".gitattributes": b""}
        self.server.private[repo] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self._answer(200, {"url": f"{self.server.address}/datasets/{repo}", "name": repo})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for one in asked["objects"]:
            upload = {"upload": {"href": f"{self.server.address}/lfs/{one['oid']}"}}
            objects.append(one if one["oid"] in self.server.objects else one | {"actions": upload})
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _store(self, oid: str, body: bytes) -> None:
        whole = hashlib.sha256(body).hexdigest() == oid
        if whole:
            self.server.objects[oid] = body
        self._answer(200 if whole else 400, {})

    def _commit(self, repo: str, files: dict[str, bytes], body: bytes) -> None:
        changed = dict(files)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                changed[value["path"]] = self.server.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del changed[value["path"]]
        self.server.repos[repo] = changed
        url = f"{self.server.address}/datasets/{repo}/commit/{COMMIT}"
        self._answer(200, {"commitUrl": url, "commitOid": COMMIT, "success": True})

    def _answer(self, code: int, content: Any, retry_after_s: int | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if retry_after_s is not None:
            self.send_header("Retry-After", str(retry_after_s))
        self.end_headers()
        self.wfile.write(data)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
