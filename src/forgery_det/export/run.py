"""`export`: checkpoint and dataset in, bundle out, or an error and no bundle.

Everything is written into a folder beside the target, whose name says that it is unfinished. Parity is measured on the
files in it; only when every format keeps its rule do card, checksums and `bundle.json` follow, and the folder is
renamed. A bundle that is already there is replaced in that moment, not before.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forgery_det._version import __version__
from forgery_det.core.artefacts import TEMPORARY_PREFIX, sha256_file, write_json, write_text
from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import ProgressSink, silent
from forgery_det.data.dataset import BadFile
from forgery_det.detectors.checkpoint import load_checkpoint
from forgery_det.export.card import model_card
from forgery_det.export.checksums import sign_bundle, write_checksums
from forgery_det.export.document import DOCUMENT_NAME, Subject, bundle_document, check_operating_points
from forgery_det.export.formats import FORMATS
from forgery_det.export.golden import write_golden
from forgery_det.export.graph import input_form
from forgery_det.export.held_out import find_run, read_held_out
from forgery_det.export.images import MAX_IMAGES, choose_images
from forgery_det.export.measure import Measured, measure
from forgery_det.export.parity import ParityRow, check_parity
from forgery_det.export.refusals import check_refusals

PARITY_NAME, CARD_NAME = "parity.json", "MODEL_CARD.md"
NO_LICENCE = "none stated: ask whoever trained the model, and see the licences of the training images"


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """An export that held.

    Args:
        bundle: The folder.
        name: Detector.
        version: Of its tensors.
        rows: Parity of each format.
        bad_files: Images of `val` that could not be read.
        notes: What a reader must know.
    """

    bundle: Path
    name: str
    version: str
    rows: tuple[ParityRow, ...]
    bad_files: tuple[BadFile, ...]
    notes: tuple[str, ...]


def export(
    checkpoint: Path,
    out: Path,
    *,
    dataset: Path,
    formats: Sequence[str] = ("onnx",),
    run: Path | None = None,
    licence: str | None = None,
    sign_key: Path | None = None,
    batch_size: int = 16,
    max_images: int = MAX_IMAGES,
    progress: ProgressSink = silent,
) -> ExportSummary:
    """Write a detector as a bundle, if every format answers as the detector does.

    Args:
        checkpoint: One of our checkpoints.
        out: Folder of the bundle; a bundle that is there is replaced.
        dataset: Dataset folder; parity, int8 ranges and abstention come from its `val`.
        formats: Names of `formats.FORMATS`.
        run: Folder of an evaluation of this checkpoint, for the model card; None takes the one it lies in, if any.
        licence: Of the model, for the card; None says that none was stated.
        sign_key: Ed25519 private key in PEM; writes `bundle.json.sig`.
        batch_size: Images a forward pass.
        max_images: Images of `val` that are measured at most.
        progress: Told how far it is.

    Raises:
        ConfigError: An option is out of range, `out` holds something else, or `val` lacks a class.
        ExportError: A format cannot be made: `ExportRefusedError` where the detector says so, `ParityError` where its
            numbers are not the detector's.
        UnknownNameError: No such format.
        WeightsError: The checkpoint cannot be read.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    names = _check(formats, out)
    loaded = load_checkpoint(checkpoint)
    detector, facts = loaded
    check_refusals(detector, names)
    check_operating_points(facts)
    manifest = Manifest.load(Path(dataset))
    digest = sha256_file(checkpoint)
    run = find_run(checkpoint) if run is None else Path(run)
    subject = Subject(
        detector, facts, digest, manifest, choose_images(manifest, max_images), input_form(detector.preprocess),
        licence or NO_LICENCE, None if run is None else read_held_out(run, digest),
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{out.name}-", dir=out.parent))
    try:
        staging.chmod(0o755)  # mkdtemp makes folders private
        measured = measure(subject, names, staging, batch_size, progress)
        check_parity(measured.rows)
        version = _finish(subject, measured, staging, sign_key)
        _replace(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ExportSummary(out, facts.detector, version, measured.rows, measured.bad_files, _notes(subject))


def is_finished(bundle: Path) -> bool:
    """Tell whether a folder is a finished bundle."""
    return (bundle / DOCUMENT_NAME).is_file()


def is_bundle_of(bundle: Path, checkpoint: Path) -> bool:
    """Tell whether a folder is a finished bundle of a checkpoint, made by this release."""
    if not is_finished(bundle):
        return False
    try:
        document = json.loads((bundle / DOCUMENT_NAME).read_text(encoding="utf-8"))
        made = document["created_from"]["checkpoint_sha256"], document["tool_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return made == (sha256_file(checkpoint), __version__)


def _check(formats: Sequence[str], out: Path) -> tuple[str, ...]:
    if not formats:
        raise ConfigError(f"Expected at least one export format, got none. Known: {', '.join(FORMATS)}.")
    names = tuple(dict.fromkeys(formats))
    for name in names:
        try:
            FORMATS.get(name)
        except ImportError as error:
            raise ConfigError(
                f"Expected the packages that write {name}, got none installed ({error}). "
                "Install them with `pip install 'forgery-det[export]'`."
            ) from error
    if out.exists() and not (out.is_dir() and (is_finished(out) or not any(out.iterdir()))):
        raise ConfigError(
            f"Expected `out` to be new, empty, or a bundle to replace, got {out}, which holds something else."
        )
    return names


def _finish(subject: Subject, measured: Measured, bundle: Path, sign_key: Path | None) -> str:
    """Write all that follows the proof; return the bundle's version."""
    golden = write_golden(subject.images, measured.eager, bundle)
    write_json(bundle / PARITY_NAME, measured.to_json())
    document = bundle_document(subject, measured.written, measured.eager, bundle)
    write_text(bundle / CARD_NAME, model_card(subject, document, measured, len(golden) - 1))
    write_json(bundle / DOCUMENT_NAME, document)
    write_checksums(bundle)
    if sign_key is not None:
        sign_bundle(bundle, sign_key)
    return str(document["version"])


def _replace(staging: Path, out: Path) -> None:
    """Rename the finished folder to its name; what was there is moved aside first and then deleted."""
    aside = staging.with_name(f"{staging.name}-old")
    if out.exists():
        out.replace(aside)
    staging.replace(out)
    shutil.rmtree(aside, ignore_errors=True)


def _notes(subject: Subject) -> tuple[str, ...]:
    notes = []
    trained_on = subject.facts.training.get("manifest_hash")
    if trained_on is not None and trained_on != subject.manifest.digest():
        notes.append(
            f"{subject.manifest.name} is not the dataset that the detector was trained on: parity holds all the same, "
            "but abstention assumes that its `val` was not trained on."
        )
    if subject.facts.temperature is None:
        notes.append("The checkpoint is not calibrated: score = sigmoid(logit), and there is no decision.")
    if subject.held_out is None:
        notes.append("No run was given: the model card has no held-out results.")
    return tuple(notes)
