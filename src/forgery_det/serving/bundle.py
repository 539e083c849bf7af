"""What a bundle says of itself, read from `bundle.json` and checked before anything is run.

A bundle is a folder that `forgery-det export` wrote: one detector in one or several formats, with the geometry,
thresholds and golden images that make its answers reproducible. `bundle.json` is written last, so a folder that has it
is finished. It holds the SHA-256 of every model file; its own bytes may be signed (`bundle.json.sig`, see
`serving.signature`), so one signature covers what is run.

A bundle may come from elsewhere, so nothing in it is trusted: types and ranges are checked, file names cannot leave the
folder, and no format is read that could carry code (no pickle).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError
from forgery_det.core.image_facts import DecodeLimits
from forgery_det.core.registry import did_you_mean
from forgery_det.serving.errors import BundleError
from forgery_det.serving.fields import MAX_DOCUMENT_BYTES, Fields, parse_document
from forgery_det.serving.signature import verify_signature
from forgery_det.transforms.preprocess import Preprocess

DOCUMENT = "bundle.json"
FORMAT = 1
RUNTIMES = ("onnxruntime", "openvino")
"""Runtimes that serving drives; formats of other runtimes (torch, Triton) travel in the bundle for other programs."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of the model and its SHA-256."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class FormatFacts:
    """One format of the model.

    Args:
        name: `onnx`, `onnx_int8`, `openvino`, `pt2` or `triton`.
        runtime: What runs it: `onnxruntime`, `openvino`, `torch` ...
        precision: `fp32` or `int8`.
        files: The file to load first, then files that it draws in (the weights beside an OpenVINO graph).
    """

    name: str
    runtime: str
    precision: str
    files: tuple[ModelFile, ...]

    @property
    def file(self) -> str:
        """Name of the file to load, relative to the bundle."""
        return self.files[0].file


@dataclass(frozen=True, slots=True)
class InputFacts:
    """What the graph takes: float32 RGB in [0, 1].

    Args:
        name: Of the graph's input.
        shape: `[batch, 3, height, width]`, with `views` before the 3 when there are several; None where any size goes.
        dynamic_size: Height and width may differ from image to image.
        views: Views of one image, None without a dimension for them.
    """

    name: str
    shape: tuple[int | None, ...]
    dynamic_size: bool
    views: int | None


@dataclass(frozen=True, slots=True)
class AbstentionBand:
    """Logits strictly between `low` and `high` are too close to call; `alpha` as in `metrics.conformal`."""

    alpha: float
    low: float
    high: float

    def holds(self, logit: float) -> bool:
        """Tell whether the answer is "uncertain".

        Example:
            >>> band = AbstentionBand(0.1, -0.5, 0.5)
            >>> band.holds(0.2), band.holds(0.5)
            (True, False)
        """
        return self.low < logit < self.high


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """What a bundle says of itself.

    Args:
        folder: Where it lies.
        name: Registry name of the detector.
        version: First twelve digits of the SHA-256 of the checkpoint's tensors.
        tool_version: Release of forgery-det that exported it.
        preprocess: Geometry between the decoded image and the graph.
        limits: Bounds on a file before it is decoded.
        input: What the graph takes.
        temperature: `score = sigmoid(logit / temperature)`; None when not calibrated (the graph then uses 1).
        operating_points: Name to threshold on the logit; None when not calibrated.
        default_operating_point: Whose threshold decides when none is asked for; None without operating points.
        abstention: Logits too close to call; None when it could not be estimated.
        formats: Name to format.
        default_format: The format that runs when none is asked for.
        document: All of `bundle.json`, for cards and pages.
    """

    folder: Path
    name: str
    version: str
    tool_version: str
    preprocess: Preprocess
    limits: DecodeLimits
    input: InputFacts
    temperature: float | None
    operating_points: Mapping[str, float] | None
    default_operating_point: str | None
    abstention: AbstentionBand | None
    formats: Mapping[str, FormatFacts]
    default_format: str
    document: Mapping[str, Any]

    def threshold(self, operating_point: str | None = None) -> float | None:
        """Return the logit from which on the decision is "generated"; None when the bundle has no operating points.

        Raises:
            ConfigError: The bundle has operating points, but not this one.
        """
        if self.operating_points is None or self.default_operating_point is None:
            return None
        chosen = self.default_operating_point if operating_point is None else operating_point
        if chosen not in self.operating_points:
            known = did_you_mean(chosen, self.operating_points)
            raise ConfigError(f"Unknown operating point {chosen!r}: {known}")
        return self.operating_points[chosen]

    def format(self, name: str | None = None) -> FormatFacts:
        """Return a format that serving can run; None takes the default.

        Raises:
            ConfigError: The bundle has no such format, or another program runs it.
        """
        chosen = self.default_format if name is None else name
        if chosen not in self.formats:
            raise ConfigError(f"Unknown format {chosen!r}: {did_you_mean(chosen, self.formats)} ({self.folder})")
        found = self.formats[chosen]
        if found.runtime not in RUNTIMES:
            runnable = [entry.name for entry in self.formats.values() if entry.runtime in RUNTIMES]
            raise ConfigError(
                f"Expected a format that runs without torch ({', '.join(runnable)}), got {chosen!r}, which "
                f"{found.runtime} runs ({self.folder})."
            )
        return found

    def path(self, name: str) -> Path:
        """Return the path of a file of the bundle.

        Raises:
            BundleError: The name leads out of the folder, or there is no such file.
        """
        return inside(self.folder, name)

    def verify(self, model: FormatFacts) -> None:
        """Compare the files of a format with their SHA-256.

        Raises:
            BundleError: A file is not the one that was exported.
        """
        for entry in model.files:
            found = sha256_file(self.path(entry.file))
            if found != entry.sha256:
                raise BundleError(
                    f"Expected {entry.file} with sha256 {entry.sha256}, got {found}: the file was changed or damaged "
                    f"after the export ({self.folder})."
                )


def is_bundle(path: str | Path) -> bool:
    """Tell whether `path` is meant as a bundle: a folder, finished or not, or its `bundle.json`."""
    return Path(path).is_dir() or Path(path).name == DOCUMENT


def read_bundle(bundle: str | Path, *, public_key: Path | None = None) -> BundleFacts:
    """Read and check `bundle.json`.

    Args:
        bundle: The folder, or its `bundle.json`.
        public_key: An Ed25519 public key (PEM, or 32 raw bytes); the bundle must then be signed with its private key.

    Raises:
        BundleError: There is no finished bundle, a field is missing or wrong, or the signature is missing or wrong.
    """
    folder = Path(bundle).parent if Path(bundle).name == DOCUMENT else Path(bundle)
    path = folder / DOCUMENT
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise BundleError(f"Expected at most {MAX_DOCUMENT_BYTES} bytes, got {path.stat().st_size} ({path}).")
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"Expected a folder with {DOCUMENT}, which `forgery-det export` writes last, got {error.strerror} ({path})."
        ) from error
    if public_key is not None:
        verify_signature(path, data, public_key)
    return _facts(parse_document(data, str(path)), folder)


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name`, which must be a file below `folder`, also when links are followed.

    Raises:
        BundleError: The name is absolute, climbs out, or there is no such file.
    """
    plain = PurePosixPath(name)
    if not name or "\\" in name or "\0" in name or ":" in name or plain.is_absolute() or ".." in plain.parts:
        raise BundleError(f"Expected the name of a file inside the bundle, got {name!r} ({folder}).")
    path = folder / plain
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"Expected a file inside the bundle, got {name!r}, a link that leaves it ({folder}).")
    if not path.is_file():
        raise BundleError(f"Expected the file {name}, got none ({folder}).")
    return path


def _facts(top: Fields, folder: Path) -> BundleFacts:
    if top.values.get("format") != FORMAT:
        top.fail("format", f"{FORMAT}; a newer forgery-det may have written it")
    labels = top.fields("labels")
    if dict(labels.values) != {"0": "real", "1": "generated"} or top.text("higher_logit") != "generated":
        top.fail("labels", '{"0": "real", "1": "generated"} with `higher_logit` = "generated"')
    formats = {name: _format(top.fields("formats").fields(name), name) for name in top.fields("formats").values}
    default_format = top.text("default_format")
    if default_format not in formats:
        top.fail("default_format", f"one of {', '.join(formats)}")
    points, default_point = _operating_points(top)
    return BundleFacts(
        folder=folder,
        name=top.text("name"),
        version=top.text("version"),
        tool_version=top.text("tool_version"),
        preprocess=_preprocess(top),
        limits=_limits(top),
        input=_input(top.fields("input")),
        temperature=top.optional("temperature", lambda name: _temperature(top, name)),
        operating_points=points,
        default_operating_point=default_point,
        abstention=top.optional("abstention", lambda name: _abstention(top.fields(name))),
        formats=MappingProxyType(formats),
        default_format=default_format,
        document=MappingProxyType(dict(top.values)),
    )


def _preprocess(top: Fields) -> Preprocess:
    try:
        return Preprocess.from_json([step.values for step in top.objects("preprocess")])
    except ConfigError as error:
        raise BundleError(f"Expected steps of geometry in `preprocess`, got {error} ({top.where})") from error


def _limits(top: Fields) -> DecodeLimits:
    most = top.optional("max_pixels", top.whole)
    return DecodeLimits() if most is None else DecodeLimits(max_pixels=most)


def _temperature(top: Fields, name: str) -> float:
    value = top.number(name)
    if value <= 0:
        top.fail(name, "above 0")
    return value


def _input(fields: Fields) -> InputFacts:
    views = fields.optional("views", fields.whole)
    length = 4 if views is None else 5

    def fits(value: Any) -> bool:
        if not isinstance(value, list) or len(value) != length or value[0] is not None or value[-3] != 3:
            return False
        sizes = [entry for entry in value if entry is not None]
        return all(isinstance(entry, int) and not isinstance(entry, bool) and entry > 0 for entry in sizes)

    expected = "[null, 3, height, width]" if views is None else f"[null, {views}, 3, height, width]"
    shape = tuple(fields.checked("shape", f"{expected}, null where any size goes", fits))
    if views is not None and shape[1] not in (None, views):
        fields.fail("shape", expected)
    return InputFacts(fields.text("name"), shape, fields.flag("dynamic_size"), views)


def _operating_points(top: Fields) -> tuple[Mapping[str, float] | None, str | None]:
    points = top.optional("operating_points", top.fields)
    if points is None or not points.values:
        return None, None
    default = top.text("default_operating_point")
    if default not in points.values:
        top.fail("default_operating_point", f"one of {', '.join(points.values)}")
    return MappingProxyType({name: points.number(name) for name in points.values}), default


def _abstention(fields: Fields) -> AbstentionBand:
    band = AbstentionBand(fields.number("alpha"), fields.number("low"), fields.number("high"))
    if not 0 < band.alpha < 1:
        fields.fail("alpha", "between 0 and 1")
    if band.low > band.high:
        fields.fail("high", f"at least `low` = {band.low}")
    return band


def _format(fields: Fields, name: str) -> FormatFacts:
    files = [ModelFile(fields.text("file"), _sha256(fields))]
    for extra in fields.optional("more_files", fields.objects) or ():
        files.append(ModelFile(extra.text("file"), _sha256(extra)))
    return FormatFacts(name, fields.text("runtime"), fields.text("precision"), tuple(files))


def _sha256(fields: Fields) -> str:
    def fits(value: Any) -> bool:
        return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")

    return str(fields.checked("sha256", "64 hexadecimal digits", fits))


__all__ = [
    "DOCUMENT",
    "RUNTIMES",
    "AbstentionBand",
    "BundleFacts",
    "FormatFacts",
    "InputFacts",
    "ModelFile",
    "inside",
    "is_bundle",
    "read_bundle",
]
