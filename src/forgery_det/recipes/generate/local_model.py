"""What the local kinds share: where a model lies, its version, device and number type, and errors that give advice."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgery_det.core.artefacts import canonical_json, sha256_bytes, sha256_file
from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.registry import did_you_mean
from forgery_det.recipes.generate.base import GeneratorContext
from forgery_det.recipes.generate.job import Job, Outcome

if TYPE_CHECKING:
    import torch

DTYPES = ("bfloat16", "float16", "float32")
OFFLOADS = ("none", "model", "sequential")

_MAX_FAILURES = 3
"""Failures in a row, with no image before them, after which a model is taken to be wrong for all jobs."""


def check_model_keys(dtype: str, offload: str = "none") -> None:
    """Check the names that every local kind has.

    Raises:
        ConfigError: One is unknown.

    Example:
        >>> check_model_keys("bf16")
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ConfigError: Unknown dtype 'bf16': did you mean 'bfloat16'? Known: ...
    """
    for name, value, known in (("dtype", dtype, DTYPES), ("offload", offload, OFFLOADS)):
        if value not in known:
            raise ConfigError(f"Unknown {name} {value!r}: {did_you_mean(value, known)}")


def model_folder(context: GeneratorContext) -> Path | None:
    """Return the folder of a model that lies on the disk, None for a model of the hub."""
    folder = context.folder / Path(context.model).expanduser()
    return folder if folder.is_dir() else None


def local_version(context: GeneratorContext) -> str:
    """Return the version that is asked for; for a folder without one, a hash of all its files."""
    folder = model_folder(context)
    if context.model_version is not None or folder is None:
        return context.model_version or ""
    return _folder_digest(folder.resolve())


@cache
def _folder_digest(folder: Path) -> str:
    # In full: a fine-tune has files of the same names and sizes.
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    hashes = [[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files]
    return f"sha256:{sha256_bytes(canonical_json(hashes).encode('utf-8'))}"


def commit_of(context: GeneratorContext, file: str) -> str | None:
    """Return the commit of the hub that the cached copy of a model is, None for a folder."""
    if model_folder(context) is not None:
        return None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(context.model, file, revision=context.model_version or "main")
    return Path(path).parent.name if isinstance(path, str) else None


def require(package: str, context: GeneratorContext, extra: str = "generate") -> None:
    """Check that a package is installed.

    Raises:
        SourceError: It is not.
    """
    if importlib.util.find_spec(package) is None:
        raise SourceError(
            f"Expected the package `{package}` for generator {context.name!r}, got none: install "
            f"`forgery-det[{extra}]`."
        )


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions."""
    return {package: importlib.metadata.version(package) for package in packages}


def pick_device(name: str | None) -> torch.device:
    """Return the device: the one that is named, else the first accelerator, else the CPU.

    Raises:
        ConfigError: There is no such device here.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"Expected a device of this machine, got {name!r}: {error} (generator.device).") from error
    return device


def device_name(device: torch.device) -> str:
    """Return what people call the device."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def loading(context: GeneratorContext) -> Iterator[None]:
    """Turn what a library raises while it loads a model into a `SourceError` that says where to mend it."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        text = " ".join(str(error).split())[:500]
        raise SourceError(
            f"Expected to load {context.model!r} (version {context.model_version or 'not named'}) for generator "
            f"{context.name!r}, got {type(error).__name__}: {text}. Is it a folder or a hub id, is it cached or the "
            "network reachable, and has its licence been accepted?"
        ) from error


@dataclasses.dataclass(slots=True)
class Failures:
    """Counts failures in a row, so that a model that fails every job stops the run at once.

    Args:
        context: The generator.
        advice: What to do when memory is short.
    """

    context: GeneratorContext
    advice: str
    in_a_row: int = 0
    any_success: bool = False

    def succeeded(self) -> None:
        """Note an image."""
        self.in_a_row, self.any_success = 0, True

    def outcomes(self, jobs: Sequence[Job], error: Exception) -> list[tuple[Job, Outcome]]:
        """Return the jobs as failed.

        Raises:
            SourceError: Memory is short, or the model has failed every job so far.
        """
        import torch

        text = " ".join(str(error).split())[:500]
        if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "out of memory" in text.lower():
            raise SourceError(
                f"Expected memory enough for generator {self.context.name!r}, got: {text}. {self.advice} What came so "
                "far is kept."
            ) from error
        self.in_a_row += 1
        detail = f"{type(error).__name__}: {text}"
        if self.in_a_row >= _MAX_FAILURES and not self.any_success:
            raise SourceError(
                f"Expected images of generator {self.context.name!r}, got {self.in_a_row} failures in a row, the last: "
                f"{detail}."
            ) from error
        return [(job, Outcome("failed", None, detail, {})) for job in jobs]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hold back progress bars and advice that the libraries print for every image; errors stay."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    bars = (diffusers_logging, transformers_logging)
    had_bars = [bar.is_progress_bar_enabled() for bar in bars]
    for bar in bars:
        bar.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Advice about their own deprecations, which users of a recipe can do nothing about.
            warnings.filterwarnings("ignore", module=r"(diffusers|transformers|huggingface_hub|torch)(\..*)?")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for bar, had_bar in zip(bars, had_bars, strict=True):
            if had_bar:
                bar.enable_progress_bar()


def json_values(value: Any) -> Any:
    """Return a value as JSON, with a text for whatever JSON has no word for.

    Example:
        >>> json_values({"steps": 2, "sizes": (1, 2), "path": Path("a")})
        {'steps': 2, 'sizes': [1, 2], 'path': 'a'}
    """
    if isinstance(value, dict):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
