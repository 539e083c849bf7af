"""How many CLIP tokens a prompt has: with the marks of start and end, and not cut at 77.

A generator whose only text encoder is CLIP reads 77 tokens, the marks included (Radford et al. 2021); what lies beyond
never reaches its image. So the count must go on where the encoder stops.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError

CountTokens = Callable[[str], int | None]


def token_counter(tokenizer: str | None, folder: Path) -> CountTokens:
    """Return a function that counts the tokens of a text.

    Args:
        tokenizer: Folder (relative to `folder`, or absolute) with the files of a CLIP tokenizer, or a name on the hub;
            None counts nothing.
        folder: The recipe's folder.

    Raises:
        ConfigError: The tokenizer is not there, or the package `transformers` is missing.

    Example:
        >>> token_counter(None, Path())("a red fox") is None
        True
    """
    if tokenizer is None:
        return lambda _text: None
    local = folder / Path(tokenizer).expanduser()
    return _counter(str(local) if local.is_dir() else tokenizer)


@lru_cache(maxsize=4)
def _counter(name: str) -> CountTokens:
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError("Expected the package `transformers`, got none: install `forgery-det[generate]`.")
    # Only here: importing transformers takes seconds.
    library: Any = importlib.import_module("transformers")
    logging: Any = importlib.import_module("transformers.utils.logging")
    try:
        tokenizer = library.CLIPTokenizer.from_pretrained(name)
    except (OSError, ValueError, TypeError) as error:
        raise _no_tokenizer(name, str(error)) from error
    if "a</w>" not in tokenizer.get_vocab():
        # transformers 5 makes an empty tokenizer where it finds no files, and counts nothing but marks with it.
        raise _no_tokenizer(name, "no vocabulary")

    def count(text: str) -> int:
        # The library warns of every text beyond 77 tokens; here that is the point.
        before = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            return len(tokenizer(text, truncation=False)["input_ids"])
        finally:
            logging.set_verbosity(before)

    return count


def _no_tokenizer(name: str, got: str) -> ConfigError:
    return ConfigError(f"Expected a CLIP tokenizer at {name!r}, got {got} (prompt_sets: tokenizer; null counts none).")
