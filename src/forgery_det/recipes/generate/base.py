"""The contract of a generator: jobs in, outcomes out, one at a time as they finish.

A generator is built from a `GeneratorSpec`, which is plain data: a worker on another machine builds the same one.
Building is cheap and touches no network; models are loaded and servers asked in `run` alone.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from forgery_det.recipes.generate.job import Job, Outcome

if TYPE_CHECKING:
    from forgery_det.recipes.generate.api.budget import BudgetSpec

Inputs = Callable[[str], bytes]
"""`sha256 -> bytes` of an input image or a mask."""

Loaded = TypeVar("Loaded")

INCIDENTAL = {"incidental": True}
"""Metadata of parameters that do not decide the pixels, such as a time limit; they do not enter the ids of jobs."""


@dataclass(frozen=True, slots=True)
class GeneratorContext:
    """What a generator knows besides its parameters.

    Args:
        name: Registry id, or the name that the recipe gives.
        model: Hub id, path or API name.
        model_version: Revision or snapshot asked for, None where the recipe and the registry name none.
        folder: Relative paths start here: the recipe's folder.
        cache: Folder of downloads.
        price: What the registry knows about prices; empty for local models.
        token_limit: Text tokens that the model reads, None where unknown.
        budget: What the run may spend, for generators that pay for each image and so watch it themselves.
    """

    name: str
    model: str
    model_version: str | None
    folder: Path
    cache: Path
    price: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    token_limit: int | None = None
    budget: BudgetSpec | None = None


class Generator(ABC):
    """A kind of generator.

    A subclass defines `Parameters`, a frozen dataclass that is the schema of its keys under `generator:` in a recipe.
    Fields with the metadata `INCIDENTAL` do not enter the ids of jobs.
    """

    Parameters: ClassVar[type]

    needs_prompt: ClassVar[bool] = True
    """False for generators that can do without a prompt."""

    needs_image: bool = False
    """True for generators that rework images."""

    takes_image: bool = True
    """False for generators that can do nothing with an input image."""

    needs_mask: bool = False
    """True for generators that paint a part of an image anew."""

    max_concurrency: int = 1
    """Jobs that may be in work at once; an executor gives no worker more."""

    keeps_budget: ClassVar[bool] = False
    """True for generators that watch `context.budget` themselves, by what each answer did cost."""

    keeps_loaded: bool = False
    """Set by a caller that comes back with one job at a time: what `run` loads then stays until `release`."""

    _kept: Any = None

    def __init__(self, parameters: Any, context: GeneratorContext) -> None:
        self.parameters = parameters
        self.context = context

    def model_version(self) -> str:
        """Return the version that is asked for; empty where none is named. It is part of each job's id."""
        return self.context.model_version or ""

    def job_parameters(self) -> dict[str, Any]:
        """Return the parameters that decide the pixels, as JSON values."""
        return deciding(self.parameters)

    def negative_prompt(self) -> str | None:
        """Return what must not be in the image; None for generators that know no such thing."""
        return getattr(self.parameters, "negative_prompt", None)

    def price_usd(self, job: Job) -> float | None:  # noqa: ARG002 - a local model costs nothing whatever the job
        """Return what a job costs at most; 0 for local models, None where it is not known."""
        return 0.0

    def seconds_estimate(self) -> float | None:
        """Return how long one image takes, None where it is not known."""
        return None

    def loaded(self, load: Callable[[], Loaded]) -> Loaded:
        """Return what `run` works with: loaded anew, or what was kept of an earlier run (`keeps_loaded`)."""
        if not self.keeps_loaded:
            return load()
        if self._kept is None:
            self._kept = load()
        kept: Loaded = self._kept
        return kept

    def release(self) -> None:
        """Let go of what was kept."""
        self._kept = None

    @abstractmethod
    def run(self, jobs: Sequence[Job], inputs: Inputs) -> Iterator[tuple[Job, Outcome]]:
        """Yield every job once with its outcome, in any order, each as soon as it is finished.

        Closing the iterator stops the work; jobs that were not yielded have no outcome.

        Raises:
            SourceError: The model cannot be loaded or the server cannot be reached: no job can succeed.
        """


@dataclass(frozen=True, slots=True)
class GeneratorSpec:
    """Everything that is needed to build a generator, here or in another process; plain data that can be pickled.

    Args:
        kind: Name in the registry of generator kinds.
        parameters: Instance of the kind's `Parameters`.
        context: What it knows besides.
    """

    kind: str
    parameters: Any
    context: GeneratorContext

    def create(self) -> Generator:
        """Build the generator; cheap, loads no model."""
        from forgery_det.recipes.generate.registry import GENERATORS  # the registry names this module's subclasses

        generator: Generator = GENERATORS.get(self.kind)(self.parameters, self.context)
        return generator


def deciding(parameters: Any) -> dict[str, Any]:
    """Return the fields of a parameter dataclass that decide the pixels, as JSON values.

    `negative_prompt` is left out: it has a place of its own in a job.

    Example:
        >>> from dataclasses import dataclass, field
        >>> @dataclass(frozen=True)
        ... class Parameters:
        ...     steps: int = 4
        ...     batch_size: int = field(default=1, metadata=INCIDENTAL)
        >>> deciding(Parameters())
        {'steps': 4}
    """
    names = [field.name for field in dataclasses.fields(parameters) if not field.metadata.get("incidental")]
    plain = dataclasses.asdict(parameters)
    return {name: _json(plain[name]) for name in names if name != "negative_prompt"}


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value
