"""Generators by name: the kinds, a line each, and the cards of `generators.yaml`, which are data.

A recipe names a generator by the id of its card, `generator: {name: stable-diffusion-3.5-large, steps: 28}`, or says
itself what it is: `{name: mine, kind: diffusers, model: owner/name, paradigm: diffusion, decoder: vae}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import Registry, did_you_mean
from forgery_det.core.types import DECODERS, PARADIGMS
from forgery_det.recipes.generate.base import GeneratorContext, GeneratorSpec
from forgery_det.recipes.schema import check_keys, parse_section, read_yaml

_HERE = "forgery_det.recipes.generate"

GENERATORS = Registry(
    "generator kind",
    {
        "command": f"{_HERE}.command:CommandGenerator",
        "diffusers": f"{_HERE}.diffusers_pipeline:DiffusersGenerator",
        "google_images": f"{_HERE}.api.google_images:GoogleImagesGenerator",
        "openai_images": f"{_HERE}.api.openai_images:OpenAIImagesGenerator",
        "reconstruct": f"{_HERE}.reconstruct:ReconstructGenerator",
        "seedream": f"{_HERE}.api.seedream:SeedreamGenerator",
        "transformers": f"{_HERE}.transformers_unified:TransformersGenerator",
    },
)

CARDS_PATH = Path(__file__).with_name("generators.yaml")
COMMERCIAL_USES = ("yes", "no", "conditional")


@dataclass(frozen=True, slots=True)
class GeneratorCard:
    """What is known about a generator; what is not known is None, with a note.

    Args:
        kind: Name in the registry of generator kinds: how it is called where the recipe does not say otherwise.
        model: Hub id or API name; None where there is no single one.
        paradigm: As in the manifest.
        decoder: As in the manifest.
        model_version: Revision or snapshot that is asked for.
        release_date: First public day of weights or API.
        licence: SPDX id or the owner's name for it.
        commercial_use: `yes`, `no`, `conditional` (the licence sets a limit, see the notes) or None for unknown.
        token_limit: Text tokens that the model reads.
        price: Prices of an API in US dollars, as its kind reads them.
        parameters: Values of the kind's parameters that the authors recommend.
        sources: Field -> address where it is stated.
        unverified: Fields that are stated here and that nobody has checked against a source.
        notes: What a reader must know, and why a field is None.
    """

    kind: str
    model: str | None
    paradigm: str
    decoder: str
    model_version: str | None = None
    release_date: date | None = None
    licence: str | None = None
    commercial_use: str | None = None
    token_limit: int | None = None
    price: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, GENERATORS.names())
        _check_choice("paradigm", self.paradigm, PARADIGMS)
        _check_choice("decoder", self.decoder, DECODERS)
        if self.commercial_use is not None:
            _check_choice("commercial_use", self.commercial_use, COMMERCIAL_USES)


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"Unknown {name} {value!r}: {did_you_mean(value, known)}")


@cache
def generator_cards() -> Mapping[str, GeneratorCard]:
    """Return id -> card, in the order of the ids.

    Raises:
        ConfigError: `generators.yaml` breaks the schema.

    Example:
        >>> generator_cards()["stable-diffusion-3.5-large"].decoder
        'vae'
    """
    content = read_yaml(CARDS_PATH)
    return {name: parse_section(GeneratorCard, content[name], f"{CARDS_PATH.name}: {name}") for name in sorted(content)}


@dataclass(frozen=True, slots=True)
class GeneratorKeys:
    """Keys that every `generator:` has; all others belong to its kind.

    Args:
        name: Id of a card, or a new name; the manifest's `generator`.
        kind: Overrules the card: the same model behind another door.
        model: Overrules the card: a copy on the disk, a serving engine's name for it.
        model_version: Overrules the card.
        paradigm: Needed for a generator without card.
        decoder: `unknown` for a generator without card that does not say.
        release_date: Of a generator without card.
    """

    name: str
    kind: str | None = None
    model: str | None = None
    model_version: str | None = None
    paradigm: str | None = None
    decoder: str | None = None
    release_date: date | None = None


_COMMON_KEYS = tuple(GeneratorKeys.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class ResolvedGenerator:
    """A `generator:` of a recipe together with its card.

    Args:
        name: The manifest's `generator`.
        kind: Name in the registry of generator kinds.
        model: Hub id, path or API name.
        model_version: Revision or snapshot asked for.
        parameters: Instance of the kind's `Parameters`.
        fields: Item fields: generator, paradigm, decoder, release_date.
        card: Its card, None for a generator that is not listed.
    """

    name: str
    kind: str
    model: str
    model_version: str | None
    parameters: Any
    fields: Mapping[str, Any]
    card: GeneratorCard | None

    def spec(self, folder: Path, cache: Path) -> GeneratorSpec:
        """Return what builds the generator.

        Args:
            folder: The recipe's folder.
            cache: Folder of downloads.
        """
        price = {} if self.card is None else dict(self.card.price)
        limit = None if self.card is None else self.card.token_limit
        context = GeneratorContext(self.name, self.model, self.model_version, folder, cache, price, limit)
        return GeneratorSpec(self.kind, self.parameters, context)


def resolve_generator(value: Any, where: str = "generator") -> ResolvedGenerator:
    """Return the generator that a recipe names.

    Args:
        value: The mapping under `generator:`.
        where: File and key path, for errors.

    Raises:
        ConfigError: The name has no card and the recipe does not say kind, model and paradigm; or a key or value does
            not fit.

    Example:
        >>> resolve_generator({"name": "stable-diffusion-3.5-larg"})
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ConfigError: Unknown generator 'stable-diffusion-3.5-larg': did you mean ...
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ConfigError(f"Expected a mapping with the key 'name', got {value!r} ({where}).")
    given = parse_section(GeneratorKeys, {key: value[key] for key in value if key in _COMMON_KEYS}, where)
    card = generator_cards().get(given.name)
    if card is None and None in (given.kind, given.model, given.paradigm):
        hint = did_you_mean(given.name, generator_cards())
        raise ConfigError(
            f"Unknown generator {given.name!r}: {hint} One that is not listed needs `kind`, `model` and `paradigm` "
            f"({where})."
        )
    kind = given.kind or (card.kind if card else "")
    if kind not in GENERATORS:
        raise ConfigError(f"Unknown generator kind {kind!r} ({where}.kind): {did_you_mean(kind, GENERATORS)}")
    model = given.model or (card.model if card else None)
    if model is None:
        raise ConfigError(f"Expected `model`, as the card of {given.name!r} names none, got none ({where}).")
    # A card's recommended parameters are those of its own kind, and of no other.
    recommended = dict(card.parameters) if card is not None and kind == card.kind else {}
    own = {key: value[key] for key in value if key not in _COMMON_KEYS}
    parameters_type = GENERATORS.get(kind).Parameters
    check_keys(value, (*_COMMON_KEYS, *parameters_type.__dataclass_fields__), where)
    parameters = parse_section(parameters_type, recommended | own, where)
    version = given.model_version or (card.model_version if card else None)
    return ResolvedGenerator(given.name, kind, model, version, parameters, _fields(given, card, where), card)


def _fields(given: GeneratorKeys, card: GeneratorCard | None, where: str) -> dict[str, Any]:
    paradigm = given.paradigm or (card.paradigm if card else "unknown")
    decoder = given.decoder or (card.decoder if card else "unknown")
    for name, value, known in (("paradigm", paradigm, PARADIGMS), ("decoder", decoder, DECODERS)):
        if value not in known:
            raise ConfigError(f"Unknown {name} {value!r} ({where}.{name}): {did_you_mean(value, known)}")
    fields: dict[str, Any] = {"generator": given.name, "paradigm": paradigm, "decoder": decoder}
    released = given.release_date or (card.release_date if card else None)
    return fields if released is None else fields | {"release_date": released}
