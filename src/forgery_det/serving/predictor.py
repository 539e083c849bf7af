"""`Predictor`: a bundle, and images in; logits, scores, decisions and warnings out. No torch.

The way of an image is the one of training and evaluation: `core.image_io` decodes, the bundle's `Preprocess` does the
geometry, and the graph holds all else (normalisation, views, temperature). The same bytes with the same batch give the
same numbers in every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_facts import ImageFacts
from forgery_det.core.image_io import decode_file, decode_image
from forgery_det.serving.bundle import BundleFacts, read_bundle
from forgery_det.serving.image_warnings import image_warnings
from forgery_det.serving.runtime import EngineOptions, FloatArray, load_engine, usable_cores
from forgery_det.transforms.preprocess import ImageArray

if TYPE_CHECKING:
    from forgery_det.serving.self_test import SelfTest

__all__ = ["Decision", "Image", "Prediction", "Predictor"]

Decision = Literal["generated", "real", "uncertain", "n/a"]
Image = Path | str | bytes | ImageArray
"""An image file by its path (Path or text), the bytes of a file, or decoded pixels (uint8 RGB, HWC)."""

NOT_FINITE = "non_finite_logit"


@dataclass(frozen=True, slots=True)
class Prediction:
    """Answer for one image.

    Args:
        key: The path as it was given, or `#0`, `#1` ... for bytes and pixels, by their place in the input.
        logit: Higher = generated; None with an error.
        score: Calibrated probability of being generated, in [0, 1]; None with an error.
        decision: `generated` or `real` at the operating point; `uncertain` where the bundle abstains; `n/a` when it has
            no operating points; None with an error.
        abstained: The logit lies in the bundle's abstention band.
        warnings: Words of `image_warnings.WARNINGS`.
        error: Why there is no answer: `reason: sentence`; None when there is one.
        facts: Facts of the file; None with an error.
    """

    key: str
    logit: float | None
    score: float | None
    decision: Decision | None
    abstained: bool = False
    warnings: tuple[str, ...] = ()
    error: str | None = None
    facts: ImageFacts | None = None


class Predictor:
    """A loaded bundle.

    Loading checks `bundle.json`, compares the model file with its SHA-256, and starts the runtime. Several threads may
    use one predictor.

    Args:
        bundle: Folder that `forgery-det export` wrote.
        format: Name of the format to run; None takes the bundle's `default_format`.
        threads: Processor threads of the runtime; None takes all that this process may use.
        providers: Execution providers of onnxruntime, or a device of OpenVINO; `["openvino"]` runs an ONNX format by
            OpenVINO; None runs on the processor.
        batch_size: Images a call of the runtime in `predict`.
        verify: Compare the model file with its SHA-256.
        public_key: Ed25519 public key; the bundle must then be signed.

    Raises:
        BundleError: The bundle is unfinished, damaged, not signed as required, or its runtime is not installed.
        ConfigError: Unknown format or provider, or a number below 1.

    Attributes:
        facts: What the bundle says of itself.
        format: The format that runs.
        engine: The runtime; its `description` names library and device.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        format: str | None = None,  # noqa: A002 - the word of bundle.json
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        batch_size: int = 16,
        verify: bool = True,
        public_key: Path | None = None,
    ) -> None:
        for name, value in (("threads", threads), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ConfigError(f"Expected `{name}` of at least 1, got {value}.")
        if public_key is not None and not verify:
            raise ConfigError("Expected `verify` with a public key: a signature covers files only by their SHA-256.")
        self.facts: BundleFacts = read_bundle(bundle, public_key=public_key)
        self.format = self.facts.format(format)
        self.batch_size = batch_size
        self.threads = threads or usable_cores()
        if verify:
            self.facts.verify(self.format)
        options = EngineOptions(self.threads, tuple(providers or ()))
        path = self.facts.path(self.format.file)
        self.engine = load_engine(self.format.runtime, path, self.facts.input.name, options)

    @property
    def seen_px(self) -> tuple[int, int] | None:
        """Height and width that the detector looks at; None when it takes any size."""
        height, width = self.facts.input.shape[-2:]
        return None if height is None or width is None else (height, width)

    def predict(self, images: Iterable[Image], *, operating_point: str | None = None) -> Iterator[Prediction]:
        """Yield one prediction for each image, in order, while they are read.

        A file that cannot be used is a prediction with its error, and the others go on. Only a few batches are in
        memory at a time. The operating point is checked at the call.

        Args:
            images: Paths, bytes of files, or decoded pixels.
            operating_point: Whose threshold decides; None takes the bundle's default.

        Raises:
            ConfigError: Unknown operating point.
        """
        self.facts.threshold(operating_point)
        return self._predictions(images, operating_point)

    def preprocess(self, image: Image) -> tuple[ImageArray, ImageFacts]:
        """Decode an image and do the geometry.

        Args:
            image: A path, the bytes of a file, or decoded pixels.

        Returns:
            uint8 views `HWC` or `VHWC`, as `logits` takes them stacked, and the facts of the file.

        Raises:
            ImageError: The file is refused; see `docs/decoding.md` for the reasons.
        """
        if isinstance(image, np.ndarray):
            facts = ImageFacts("pixels", image.shape[1], image.shape[0], image.nbytes, "RGB", 8)
            return self.facts.preprocess(image), facts
        if isinstance(image, bytes):
            decoded = decode_image(image, self.facts.limits)
        else:
            decoded = decode_file(Path(image), self.facts.limits)
        return self.facts.preprocess(decoded.image_HWC), decoded.facts

    def logits(self, views: ImageArray) -> tuple[FloatArray, FloatArray]:
        """Run the graph on preprocessed images of one shape.

        Args:
            views: uint8, `[B, H, W, 3]` or `[B, V, H, W, 3]`.

        Returns:
            `logit_B` and `score_B`, float32.

        Raises:
            ConfigError: The shape is not the one that the graph takes.
        """
        self._check_shape(views)
        # One pass: channels first, then float32 / 255, the same division as in training.
        planes = np.moveaxis(views, -1, -3)
        image = np.empty(planes.shape, np.float32)
        np.divide(planes, np.float32(255), out=image, dtype=np.float32, casting="unsafe")
        return self.engine.run(image)

    def judge(
        self,
        key: str,
        logit: float,
        score: float,
        facts: ImageFacts,
        *,
        operating_point: str | None = None,
    ) -> Prediction:
        """Turn a logit into an answer: decision at the operating point, abstention, warnings.

        Raises:
            ConfigError: Unknown operating point.
        """
        threshold = self.facts.threshold(operating_point)
        if not np.isfinite(logit):
            return _failed(key, f"{NOT_FINITE}: Expected a number from the detector, got {logit}")
        band = self.facts.abstention
        abstained = band is not None and band.holds(logit)
        decision: Decision = "n/a"
        if abstained:
            decision = "uncertain"
        elif threshold is not None:
            decision = "generated" if logit >= threshold else "real"
        warnings = image_warnings(facts, self.seen_px)
        return Prediction(key, logit, score, decision, abstained, warnings, None, facts)

    def self_test(self) -> SelfTest:
        """Score the bundle's golden images and compare with the numbers of the detector that was exported."""
        from forgery_det.serving.self_test import run_self_test

        return run_self_test(self)

    def _predictions(self, images: Iterable[Image], operating_point: str | None) -> Iterator[Prediction]:
        with ThreadPoolExecutor(self.threads, "forgery-det-decode") as pool:
            batches = self._read_ahead(images, pool)
            first = 0
            for batch in batches:
                read = [future.result() for _, future in batch]
                answers = self._run([entry for entry in read if not isinstance(entry, str)])
                for index, ((image, _), entry) in enumerate(zip(batch, read, strict=True)):
                    key = _key(image, first + index)
                    if isinstance(entry, str):
                        yield _failed(key, entry)
                        continue
                    logit, score = next(answers)
                    yield self.judge(key, logit, score, entry[1], operating_point=operating_point)
                first += len(batch)

    def _read_ahead(self, images: Iterable[Image], pool: ThreadPoolExecutor) -> Iterator[list[tuple[Image, Any]]]:
        """Yield batches of (image, future), the next one being decoded while the caller works on this one."""
        waiting = iter(images)
        ahead: list[tuple[Image, Any]] = []
        while True:
            batch = [(image, pool.submit(self._read, image)) for image in islice(waiting, self.batch_size)]
            if ahead:
                yield ahead
            if not batch:
                return
            ahead = batch

    def _read(self, image: Image) -> tuple[ImageArray, ImageFacts] | str:
        """Return what `preprocess` does, or the error's text."""
        try:
            if isinstance(image, str | Path) and Path(image).is_dir():
                return f"no_images: Expected images in the folder, got none ({fspath(image)})"
            return self.preprocess(image)
        except ImageError as error:
            return str(error)
        except ValueError as error:
            # A null byte in a name never reaches the file system.
            return f"unreadable: Expected a path, got {image!r} ({error})"

    def _run(self, read: Sequence[tuple[ImageArray, ImageFacts]]) -> Iterator[tuple[float, float]]:
        """Yield logit and score in the order of `read`; only images of one shape share a call of the runtime."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, (views, _) in enumerate(read):
            shapes.setdefault(views.shape, []).append(index)
        found: dict[int, tuple[float, float]] = {}
        for indices in shapes.values():
            logit_B, score_B = self.logits(np.stack([read[index][0] for index in indices]))
            found |= dict(zip(indices, zip(logit_B.tolist(), score_B.tolist(), strict=True), strict=True))
        return (found[index] for index in range(len(read)))

    def _check_shape(self, views: ImageArray) -> None:
        shape = self.facts.input.shape
        wanted = (*shape[:-3], *shape[-2:], 3)
        fits = len(views.shape) == len(wanted) and all(
            want is None or want == got for want, got in zip(wanted, views.shape, strict=True)
        )
        if views.dtype != np.uint8 or not fits or 0 in views.shape:
            expected = " x ".join("any" if want is None else str(want) for want in wanted)
            raise ConfigError(
                f"Expected uint8 images of shape {expected}, got {views.dtype} of shape {views.shape}. "
                "`Predictor.preprocess` makes them."
            )


def _key(image: Image, index: int) -> str:
    return fspath(image) if isinstance(image, str | Path) else f"#{index}"


def _failed(key: str, error: str) -> Prediction:
    return Prediction(key, None, None, None, error=error)
