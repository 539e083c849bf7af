"""How fast does a bundle answer, against the detector in eager PyTorch? Prints ratios, asserts nothing.

    python benchmarks/serving_throughput.py --checkpoint RUN/checkpoints/best.ckpt --dataset DATASET
        [--threads 2] [--repeats 15] [--work FOLDER]

Two detectors: the checkpoint (the default detector: frozen_probe on EfficientNet-Lite0) and a ResNet-50 of that size
with random weights. Five contenders each, in a process of its own with the same number of threads: eager PyTorch
float32, and the runtimes of a bundle. They take turns, one call each, and the least of many calls counts, so that other
work on the machine weighs little. Two figures: wall time, and processor time of all threads, which other work hardly
touches. Ratios are against eager PyTorch's best batch size. `model` is the graph alone; `end to end` begins with files
(decode, geometry, model). `start-up` is a fresh process from `import forgery_det` to its first answer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

LIMITS = {"fp32": 2.0, "int8": 4.0}
START_LIMIT_S = 2.0
EAGER = "eager torch fp32"
CONTENDERS = (
    (EAGER, "", "fp32", False),
    ("onnxruntime fp32", "onnx", "fp32", False),
    ("onnxruntime int8", "onnx_int8", "int8", False),
    ("openvino fp32", "openvino", "fp32", False),
    ("openvino int8 (the int8 ONNX)", "onnx_int8", "int8", True),
)


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to answer: a bundle's format, or the checkpoint itself."""

    name: str
    format: str
    precision: str
    by_openvino: bool
    bundle: Path
    checkpoint: Path
    files: tuple[str, ...]
    threads: int


def answerer(contender: Contender) -> tuple[Callable[[int], Any], Callable[[], Any]]:
    """Return the model on a batch of that many random images, and the way from files to rows."""
    if contender.name == EAGER:
        return eager(contender)
    from forgery_det.serving.predictor import Predictor
    from forgery_det.serving.runtime import EngineOptions, load_engine

    predictor = Predictor(contender.bundle, format=contender.format, threads=contender.threads)
    if contender.by_openvino:
        path = predictor.facts.path(predictor.format.file)
        predictor.engine = load_engine("openvino", path, "image", EngineOptions(contender.threads))
    shape = tuple(side or 224 for side in predictor.facts.input.shape[1:])
    return (
        lambda n: predictor.engine.run(noise(n, shape)),
        lambda: list(predictor.predict(contender.files)),
    )


def eager(contender: Contender) -> tuple[Callable[[int], Any], Callable[[], Any]]:
    import torch

    from forgery_det.detectors.checkpoint import load_checkpoint
    from forgery_det.evaluation.predict import predict

    torch.set_num_threads(contender.threads)
    loaded = load_checkpoint(contender.checkpoint)

    def model(n: int) -> Any:
        with torch.inference_mode():
            return loaded.detector(torch.from_numpy(noise(n, (3, 224, 224))))

    return model, lambda: list(predict(loaded, contender.files, device="cpu"))


@cache
def noise(n: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random((n, *shape), np.float32)


def serve_calls(contender: Contender, connection: Connection) -> None:
    """Answer requests for one timed call until None comes."""
    model, files = answerer(contender)
    connection.send("ready")
    while (request := connection.recv()) is not None:
        n, work = (len(contender.files), files) if request == "files" else (request, lambda: model(request))
        if request != "files":
            noise(request, (3, 224, 224))  # made before the clock starts
        wall, processor = time.perf_counter(), time.process_time()
        work()
        connection.send(((time.perf_counter() - wall) / n, (time.process_time() - processor) / n))


def measure(
    contenders: list[Contender], batches: list[int], repeats: int
) -> dict[tuple[str, Any], tuple[float, float]]:
    """Return the least (wall, processor) seconds an image for each contender and request."""
    spawn = multiprocessing.get_context("spawn")
    best: dict[tuple[str, Any], tuple[float, float]] = {}
    ends = {}
    for contender in contenders:
        here, there = spawn.Pipe()
        spawn.Process(target=serve_calls, args=(contender, there), daemon=True).start()
        if here.recv() != "ready":
            raise RuntimeError(contender.name)
        ends[contender.name] = here
    for repeat in range(repeats):
        for request in [*batches, *(["files"] if repeat % 5 == 0 else [])]:
            for name, end in ends.items():
                end.send(request)
                found = end.recv()
                known = best.get((name, request), (float("inf"), float("inf")))
                best[name, request] = (min(known[0], found[0]), min(known[1], found[1]))
    for end in ends.values():
        end.send(None)
    return best


def make_bundles(args: argparse.Namespace) -> Iterator[tuple[str, Path, Path]]:
    """Yield title, bundle and checkpoint of both detectors; what an earlier run made is used again."""
    from forgery_det.export import export

    formats = ("onnx", "onnx_int8", "openvino")
    resnet = args.work / "resnet50.ckpt"
    if not resnet.exists():
        make_resnet(resnet)
    for title, checkpoint in (("default detector", args.checkpoint), ("ResNet-50", resnet)):
        bundle = args.work / f"{checkpoint.stem}-bundle"
        if not (bundle / "bundle.json").exists():
            export(checkpoint, bundle, dataset=args.dataset, formats=formats, max_images=args.images)
        yield title, bundle, checkpoint


def make_resnet(path: Path) -> None:
    import torch

    from forgery_det.detectors import create_detector
    from forgery_det.detectors.checkpoint import save_checkpoint

    torch.manual_seed(0)
    save_checkpoint(path, create_detector("cnndetection"))


def start_up(bundle: Path, file: str) -> tuple[float, float]:
    """Return the least wall and processor seconds of a fresh process that answers once."""
    code = f"from forgery_det import Predictor; print(next(Predictor({str(bundle)!r}).predict([{file!r}])).logit)"
    walls, processors = [], []
    for _ in range(5):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(time.perf_counter() - start)
        processors.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(walls), min(processors)


def report(title: str, contenders: list[Contender], best: dict[Any, tuple[float, float]], batches: list[int]) -> None:
    requests = [*batches, "files"]
    print(f"\n{title}: {'':<24}{'wall':>34}{'processor':>32}")
    base = [min(best[EAGER, n][column] for n in batches) for column in (0, 1)]
    files = [best[EAGER, "files"][column] for column in (0, 1)]
    for request in requests:
        against = files if request == "files" else base
        print("  end to end, files" if request == "files" else f"  model, batch {request}")
        for contender in contenders:
            wall, processor = best[contender.name, request]
            limit = LIMITS[contender.precision] if contender.name != EAGER and request != "files" else None
            print(
                f"    {contender.name:<32}{1000 * wall:8.1f} ms/image x{against[0] / wall:5.2f}"
                f"{1000 * processor:12.1f} ms/image x{against[1] / processor:5.2f}"
                + (f"   limit x{limit:.0f}" if limit else "")
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/serving_throughput"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--images", type=int, default=40, help="of val, for int8 ranges and the end-to-end figure")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_WAIT_POLICY"] = "passive"  # what waits counts as processor time otherwise
    print(f"threads {args.threads}, load before: {os.getloadavg()[0]:.1f}")
    files = sorted(str(path) for path in (args.dataset / "images").rglob("*") if path.is_file())[: args.images]
    for title, bundle, checkpoint in make_bundles(args):
        contenders = [Contender(*row, bundle, checkpoint, tuple(files), args.threads) for row in CONTENDERS]
        report(title, contenders, measure(contenders, args.batches, args.repeats), args.batches)
        wall, processor = start_up(bundle, files[0])
        print(f"  start-up to the first answer: {wall:.2f} s, processor {processor:.2f} s; limit {START_LIMIT_S:.0f} s")
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
