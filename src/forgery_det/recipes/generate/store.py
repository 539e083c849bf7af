"""The job store: every outcome that was ever produced or paid for, found by the id of its job.

    <cache>/generated/<job_id[:2]>/<job_id>.json     job, outcome, provenance, sha256 of the image
    <cache>/generated/<job_id[:2]>/<job_id>.bin      the image's bytes
    <cache>/generated/inputs/<sha[:2]>/<sha>         input images and masks, by their sha256

The bytes are written first and the JSON last, each atomically. So a job has its JSON exactly when it is whole, and a
kill loses at most the jobs in flight. All datasets of a machine share one store.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgery_det.core.artefacts import sha256_bytes, write_bytes, write_json
from forgery_det.core.errors import SourceError
from forgery_det.recipes.generate.job import OUTCOME_KINDS, Job, Outcome

STORE_NAME = "generated"


class JobStore:
    """Outcomes and inputs of jobs below `<cache>/generated`.

    Args:
        cache: Folder of downloads, `SourceContext.cache`.

    Example:
        >>> import tempfile
        >>> store = JobStore(Path(tempfile.mkdtemp()))
        >>> job = Job("toy", "command", "toy", "", "a fox", None, 7, {})
        >>> store.get(job.job_id) is None
        True
        >>> store.put(job, Outcome("image", b"bytes"))
        >>> store.get(job.job_id).data
        b'bytes'
    """

    def __init__(self, cache: Path) -> None:
        self.root = Path(cache) / STORE_NAME

    def path(self, job_id: str) -> Path:
        """Return where the JSON of a job lies; its image lies beside it with the suffix `.bin`."""
        return self.root / job_id[:2] / f"{job_id}.json"

    def put(self, job: Job, outcome: Outcome) -> None:
        """Store an outcome; a final one is never replaced by a failure."""
        job_id = job.job_id
        if not outcome.is_final and self.is_done(job_id):
            return
        path = self.path(job_id)
        if outcome.data is not None:
            write_bytes(path.with_suffix(".bin"), outcome.data)
        write_json(
            path,
            {
                "job_id": job_id,
                "job": job.to_json(),
                "outcome": outcome.kind,
                "detail": outcome.detail,
                "provenance": dict(outcome.provenance),
                "sha256": None if outcome.data is None else sha256_bytes(outcome.data),
                "n_bytes": None if outcome.data is None else len(outcome.data),
            },
        )

    def get(self, job_id: str) -> Outcome | None:
        """Return the outcome of a job, whatever it was; None where there is none or its image is damaged."""
        entry = self._entry(job_id)
        if entry is None:
            return None
        data = self._data(job_id) if entry["outcome"] == "image" else None
        if data is not None and sha256_bytes(data) != entry["sha256"]:
            return None
        return Outcome(entry["outcome"], data, entry["detail"], entry["provenance"])

    def is_done(self, job_id: str) -> bool:
        """Tell whether a job has a final outcome, reading no image."""
        entry = self._entry(job_id)
        return entry is not None and entry["outcome"] != "failed"

    def _entry(self, job_id: str) -> dict[str, Any] | None:
        path = self.path(job_id)
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            # Atomic writing leaves no half file; what cannot be read was damaged otherwise and is made anew.
            return None
        if not isinstance(entry, dict) or entry.get("outcome") not in OUTCOME_KINDS:
            return None
        image = path.with_suffix(".bin")
        if entry["outcome"] == "image" and not (image.is_file() and image.stat().st_size == entry["n_bytes"]):
            return None
        return entry

    def _data(self, job_id: str) -> bytes:
        return self.path(job_id).with_suffix(".bin").read_bytes()

    def put_input(self, data: bytes) -> str:
        """Keep an input image or a mask and return its sha256."""
        sha256 = sha256_bytes(data)
        path = self.input_path(sha256)
        if not path.is_file() or path.stat().st_size != len(data):
            write_bytes(path, data)
        return sha256

    def input_path(self, sha256: str) -> Path:
        """Return where an input lies."""
        return self.root / "inputs" / sha256[:2] / sha256

    def read_input(self, sha256: str) -> bytes:
        """Return an input image or a mask.

        Raises:
            SourceError: It is not in the store, or damaged.
        """
        path = self.input_path(sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SourceError(f"Expected the input {sha256} in the store, got: {error.strerror} ({path}).") from error
        if sha256_bytes(data) != sha256:
            raise SourceError(f"Expected the bytes of {sha256} in the store, got others: delete {path}.")
        return data
