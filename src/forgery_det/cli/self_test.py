"""`forgery-det self-test`: does this machine give the numbers that the exported detector gave?"""

from __future__ import annotations

from pathlib import Path

from forgery_det.serving.bundle import RUNTIMES, read_bundle
from forgery_det.serving.predictor import Predictor


def self_test(
    bundle: Path,
    format: str | None = None,  # noqa: A002 - the word of bundle.json
    threads: int | None = None,
    providers: list[str] | None = None,
    public_key: Path | None = None,
) -> int:
    """Score the golden images of a bundle; exit code 1 when a logit is off.

    Args:
        bundle: folder that `forgery-det export` wrote
        format: onnx, onnx_int8 or openvino; without it every format of the bundle that runs without torch
        threads: processor threads; without it all
        providers: execution providers of onnxruntime, for instance CUDAExecutionProvider
        public_key: Ed25519 public key; the bundle must then be signed
    """
    facts = read_bundle(bundle, public_key=public_key)
    names = [name for name, entry in facts.formats.items() if entry.runtime in RUNTIMES] if format is None else [format]
    failed = 0
    for name in names or [facts.default_format]:
        predictor = Predictor(bundle, format=name, threads=threads, providers=providers, public_key=public_key)
        tested = predictor.self_test()
        failed += not tested.passed
        print(f"{'passed' if tested.passed else 'FAILED'}: {tested.explain()}")
    return 1 if failed else 0
