"""Golden images: does this machine give the numbers that the exported detector gave?

A bundle carries a few real images with the logits of the detector in PyTorch, float32. Another processor, another
release of the runtime or a damaged file shows here, before it shows in answers. An int8 model differs from float32 by
design; its tolerance is the largest difference that the export measured on `val` (`parity.json`), and a quarter more,
because another processor or runtime rounds some of its activations the other way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ImageError
from forgery_det.serving.bundle import BundleFacts
from forgery_det.serving.errors import BundleError
from forgery_det.serving.fields import Fields, parse_document

if TYPE_CHECKING:
    from forgery_det.serving.predictor import Predictor

GOLDEN_FOLDER = "golden"
GOLDEN_DOCUMENT = "golden/golden.json"
FP32_TOLERANCE = 1e-4
"""On the logit, relative to max(1, |logit|)."""

INT8_MARGIN = 1.25
"""Times the largest difference that was measured at the export."""


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """One golden image.

    Args:
        file: Name of the file.
        expected: Logit of the exported detector in PyTorch.
        logit: Logit here; None with an error.
        difference: |logit - expected| / max(1, |expected|); infinite with an error.
        error: Why there is no logit.
    """

    file: str
    expected: float
    logit: float | None
    difference: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Outcome of a self-test.

    Args:
        format: The format that ran.
        runtime: Library and device.
        tolerance: Largest difference that passes.
        results: An entry a golden image.
    """

    format: str
    runtime: str
    tolerance: float
    results: tuple[GoldenResult, ...]

    @property
    def worst(self) -> float:
        """Largest difference."""
        return max(result.difference for result in self.results)

    @property
    def passed(self) -> bool:
        """Every image gave its logit within the tolerance."""
        return self.worst <= self.tolerance

    def explain(self) -> str:
        """Return a sentence: what was compared, and the first image that failed."""
        head = (
            f"{len(self.results)} golden images, {self.format} on {self.runtime}: largest difference of the logit "
            f"{self.worst:.2e}, tolerance {self.tolerance:.2e} relative to max(1, |logit|)"
        )
        for result in self.results:
            if result.difference > self.tolerance:
                got = f"{result.logit:.6f}" if result.logit is not None else result.error
                return f"{head}. Expected logit {result.expected:.6f} for {result.file}, got {got}."
        return f"{head}."


def run_self_test(predictor: Predictor) -> SelfTest:
    """Score the golden images of the predictor's bundle.

    Raises:
        BundleError: There are no golden images, or one is not the file that was exported.
    """
    golden = _read_golden(predictor.facts)
    results = tuple(_compare(predictor, *entry) for entry in golden)
    tolerance = FP32_TOLERANCE if predictor.format.precision == "fp32" else _measured_tolerance(predictor)
    return SelfTest(predictor.format.name, predictor.engine.description, tolerance, results)


def _read_golden(facts: BundleFacts) -> list[tuple[str, bytes, float]]:
    where = facts.path(GOLDEN_DOCUMENT)
    # The document is a list; the field reader takes objects.
    fields = parse_document(b'{"golden": ' + where.read_bytes() + b"}", str(where))
    found = [_golden_image(facts, entry) for entry in fields.objects("golden")]
    if not found:
        raise BundleError(f"Expected golden images, got none ({where}).")
    return found


def _golden_image(facts: BundleFacts, entry: Fields) -> tuple[str, bytes, float]:
    name = entry.text("file")
    data = facts.path(f"{GOLDEN_FOLDER}/{name}").read_bytes()
    if sha256_bytes(data) != entry.text("sha256"):
        raise BundleError(f"Expected golden/{name} with sha256 {entry.text('sha256')}, got {sha256_bytes(data)}.")
    return name, data, entry.number("logit")


def _compare(predictor: Predictor, name: str, data: bytes, expected: float) -> GoldenResult:
    try:
        views, _ = predictor.preprocess(data)
    except ImageError as error:
        return GoldenResult(name, expected, None, float("inf"), str(error))
    logit = float(predictor.logits(views[None])[0][0])
    difference = abs(logit - expected) / max(1.0, abs(expected))
    return GoldenResult(name, expected, logit, difference)


def _measured_tolerance(predictor: Predictor) -> float:
    path = predictor.facts.path("parity.json")
    formats = parse_document(path.read_bytes(), str(path)).fields("formats")
    return max(FP32_TOLERANCE, INT8_MARGIN * formats.fields(predictor.format.name).number("max_relative"))
