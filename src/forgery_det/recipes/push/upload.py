"""Upload: one commit on the hub that holds the whole folder, so that a reader meets the old dataset or the new one.

Large files go to the hub's storage first, where they are found by their sha256: after an interruption only what is not
there yet is sent again. The commit comes last. `huggingface_hub` tries an upload again after 429 and 5xx, but not the
making of a repository and not the commit; here all of it is tried again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from forgery_det.core.errors import SourceError
from forgery_det.recipes.push.folder import PushFolder

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError


ATTEMPTS = 5
_FIRST_WAIT_S, _LONGEST_WAIT_S = 2.0, 300.0


def upload(folder: PushFolder, *, private: bool = True, endpoint: str | None = None) -> str:
    """Upload a prepared folder as one commit; return the address of the commit.

    The token is the user's own (`hf auth login` or `HF_TOKEN`); it is neither read nor stored here.

    Args:
        folder: The folder.
        private: Whether a repository that does not exist yet is made private; an existing one stays as it is.
        endpoint: Address of the hub; None takes `HF_ENDPOINT` or the public one.

    Raises:
        SourceError: The hub cannot be reached, or it refused.
    """
    # Only here: the command line answers without it.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint)
    try:
        for attempt in range(ATTEMPTS):
            try:
                api.create_repo(folder.repo, repo_type="dataset", private=private, exist_ok=True)
                return _commit(api, folder)
            except HfHubHTTPError as error:
                if not _passes(error) or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(_wait_s(error, attempt))
        raise AssertionError("the last attempt returns or raises")
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        raise SourceError(
            f"Expected to push to {folder.repo!r}, got: {error}. What was sent is kept; run the same command again to "
            "go on."
        ) from error


def _passes(error: HfHubHTTPError) -> bool:
    """Tell whether the same request may succeed later."""
    code = error.response.status_code
    return code == 429 or code >= 500


def _wait_s(error: HfHubHTTPError, attempt: int) -> float:
    stated = error.response.headers.get("Retry-After", "")
    wait_s = float(stated) if stated.isdecimal() else _FIRST_WAIT_S * 2**attempt
    return min(wait_s, _LONGEST_WAIT_S)


def _commit(api: HfApi, folder: PushFolder) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = api.list_repo_files(folder.repo, repo_type="dataset")
    stale = [name for name in there if name.startswith("data/") and name not in folder.files]
    changes = [CommitOperationAdd(name, folder.path / name) for name in folder.files]
    removals = [CommitOperationDelete(name) for name in stale]
    done = api.create_commit(
        folder.repo,
        [*changes, *removals],
        commit_message=f"{folder.n_images} images by forgery-det",
        repo_type="dataset",
    )
    return str(done.commit_url)
