"""Weights that a model hub holds, by an address: `hf://owner/name[@revision]/path/of/file`.

Authors publish there, so an address may stand wherever a path of weights may. The file goes into the hub client's own
cache and is fetched once; with a commit's hash as the revision, a cached file is used without asking the hub at all.
A branch may move under its name: pin the revision of whatever a result depends on. The client's environment variables
hold: `HF_ENDPOINT` (another server with the same protocol), `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`.

What comes from there is read as safely as any other file, see `detectors.weights`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from forgery_det.core.errors import WeightsError

# A pathlib.Path of an address has one slash left after the colon.
_ADDRESS = re.compile(r"hf:/{1,2}(?P<owner>[^/@]+)/(?P<name>[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>[^/].*)")
_REFUSED = (401, 403)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in a repository of a model hub.

    Args:
        repository: `owner/name`.
        file: Path inside it.
        revision: Branch, tag or commit; None is the repository's default branch.
    """

    repository: str
    file: str
    revision: str | None = None

    @classmethod
    def parse(cls, address: str) -> HubFile:
        """Read an address.

        Raises:
            WeightsError: It is not of the form `hf://owner/name[@revision]/path/of/file`.

        Example:
            >>> HubFile.parse("hf://someone/detector@v1.0/weights/best.ckpt")
            HubFile(repository='someone/detector', file='weights/best.ckpt', revision='v1.0')
        """
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise WeightsError(
                f"Expected an address of the form hf://owner/name[@revision]/path/of/file, got {address!r}. "
                "A slash in a revision is written %2F."
            )
        revision = match["revision"]
        return cls(f"{match['owner']}/{match['name']}", match["file"], unquote(revision) if revision else None)

    def __str__(self) -> str:
        """Return the address."""
        at = "" if self.revision is None else f"@{self.revision.replace('/', '%2F')}"
        return f"hf://{self.repository}{at}/{self.file}"


def is_address(source: str | Path) -> bool:
    """Tell whether `source` is an address of a hub, not a path.

    Example:
        >>> is_address("hf://someone/detector/best.ckpt"), is_address("runs/best.ckpt")
        (True, False)
    """
    return str(source).startswith("hf:/")


def local_file(source: str | Path) -> Path:
    """Return where the file of a path or an address lies; an address is fetched into the cache first.

    Raises:
        WeightsError: The address is malformed, the hub has no such file or refuses it, or it cannot be reached and the
            file is not in the cache.
    """
    return fetch(HubFile.parse(str(source))) if is_address(source) else Path(source)


def fetch(wanted: HubFile) -> Path:
    """Return the file's place in the cache; download it when it is not there.

    Raises:
        WeightsError: As `local_file`.
    """
    from huggingface_hub import errors, hf_hub_download

    # The HTTP library's own error, under the name by which the client uses it: it has changed the library before.
    transport: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    # The client reads HF_ENDPOINT once, when it is imported; we, at each call.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        return Path(hf_hub_download(wanted.repository, wanted.file, revision=wanted.revision, endpoint=endpoint))
    except (errors.EntryNotFoundError, transport, OSError, ValueError) as error:
        raise WeightsError(_explained(wanted, error)) from error


def _explained(wanted: HubFile, error: Exception) -> str:
    from huggingface_hub import errors

    cause = "" if error.__cause__ is None else f" ({_first_line(error.__cause__)})"
    at = f"{wanted.repository} at {wanted.revision or 'its default branch'}"
    login = "log in with `hf auth login` or set HF_TOKEN"
    # The more special error stands before the one that it derives from.
    texts: dict[type[Exception], str] = {
        errors.LocalEntryNotFoundError: (
            f"to download {wanted}, got no usable answer from the hub{cause}, and the file is not in the cache. "
            "Connect, or set HF_ENDPOINT to a server that can be reached; or fetch the file elsewhere and give its "
            "path."
        ),
        errors.GatedRepoError: (
            f"access to {wanted}, got a gated repository. Accept its terms on its page, then {login}."
        ),
        errors.RepositoryNotFoundError: (
            f"a repository {wanted.repository}, got none of that name that may be read as you are ({wanted}). Check "
            f"the name; for a private one {login}."
        ),
        errors.RevisionNotFoundError: f"a revision {wanted.revision} of {wanted.repository}, got none ({wanted}).",
        errors.EntryNotFoundError: f"a file {wanted.file} in {at}, got none ({wanted}).",
    }
    told = next((text for kind, text in texts.items() if isinstance(error, kind)), None)
    if told is None and getattr(getattr(error, "response", None), "status_code", None) in _REFUSED:
        told = f"access to {wanted}, got {_first_line(error)}. For a private repository {login}."
    return f"Expected {told or f'to download {wanted}, got {_first_line(error)}. The same command tries again.'}"


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(". ")
