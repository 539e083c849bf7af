"""What the models that run on this machine share: where they lie, the seed, and generation."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forgery_det.recipes.generate.base import GeneratorContext
from forgery_det.recipes.generate.local_model import local_version
from forgery_det.recipes.prompting.base import TextModelDownError, TextReply


def local_or_hub(model: str, folder: Path) -> str:
    """Return the folder of a model beside the recipe if there is one, otherwise the name on the hub.

    Example:
        >>> local_or_hub("owner/name", Path("recipe"))
        'owner/name'
    """
    local = folder / Path(model).expanduser()
    return str(local) if local.is_dir() else model


def need(package: str) -> None:
    """Check that a package of the extra `generate` is there.

    Raises:
        TextModelDownError: It is not.
    """
    if importlib.util.find_spec(package) is None:
        raise TextModelDownError(f"Expected the package `{package}`, got none: install `forgery-det[generate]`.")


def version_of(model: str, revision: str | None, folder: Path) -> str:
    """Return the version that is asked for; for a folder without one a hash of all its files.

    So other weights under an old name are another model, and no text of the old one is taken for theirs.
    """
    return local_version(GeneratorContext(model, model, revision, folder, folder))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run the body under a seed of torch's own generators, which the libraries sample with, and put them back."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def generate(model: Any, inputs: Any, decode: Any, max_tokens: int, temperature: float, seed: int) -> TextReply:
    """Return what a model of the library transformers writes.

    Args:
        model: A model with `generate`.
        inputs: Its inputs, on its device; decoder-only models repeat `input_ids`, of shape (1, T), in what they return.
        decode: Turns token ids into text.
        max_tokens: Most new tokens.
        temperature: Of the sampling; 0 takes the likeliest token each time.
        seed: Of the sampling.
    """
    import torch

    sampling: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        sampling["temperature"] = temperature
    with seeded(seed), torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=max_tokens, **sampling)[0]
    given = 0 if model.config.is_encoder_decoder else _given_tokens(inputs, ids)
    new = ids[given:]
    ends = model.generation_config.eos_token_id
    stopped = len(new) < max_tokens or (len(new) > 0 and int(new[-1]) in (ends if isinstance(ends, list) else [ends]))
    return TextReply(
        text=decode(new, skip_special_tokens=True),
        finish="stop" if stopped else "length",
        model_version=getattr(model.config, "_commit_hash", None) or "",
        usage={"prompt_tokens": given, "completion_tokens": len(new)},
    )


def _given_tokens(inputs: Any, ids: Any) -> int:
    """Return how many of the ids are the input; some captioners return the new ones alone."""
    if "input_ids" not in inputs:
        return 0
    given = inputs["input_ids"][0]
    return len(given) if len(ids) >= len(given) and bool((ids[: len(given)] == given).all()) else 0
