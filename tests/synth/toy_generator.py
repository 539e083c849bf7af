"""A program for the generator kind `command`, in plain Python so that it starts in milliseconds.

    python toy_generator.py LOG

Every job that it begins is a line of LOG. What it does depends on the prompt: `refuse`, `block`, `fail`, `crash`,
`crash once`, `hang`, `garbage`, `chatter` (lines that are no answers), anything else gives an image of its seed.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import TextIO


def png(seed: str, side_px: int) -> bytes:
    """An RGB image of smooth seeded waves in noise."""
    rng = random.Random(seed)
    base = [rng.randrange(60, 190) for _ in range(3)]
    tilt = [rng.uniform(-0.8, 0.8) for _ in range(6)]
    rows = bytearray()
    for y in range(side_px):
        rows.append(0)
        for x in range(side_px):
            for c in range(3):
                value = base[c] + tilt[2 * c] * x + tilt[2 * c + 1] * y + rng.uniform(-40, 40)
                rows.append(max(0, min(255, int(value))))

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def say(stream: TextIO, text: str) -> None:
    """Write a line at once."""
    stream.write(text + "\n")
    stream.flush()


def main() -> None:
    log = Path(sys.argv[1])
    for line in sys.stdin:
        job = json.loads(line)
        with log.open("a") as file:
            file.write(job["job_id"] + "\n")
        prompt = job["prompt"] or ""
        time.sleep(float(job["parameters"].get("delay_s", 0)))
        answer = {"job_id": job["job_id"], "status": "image", "model_version": "toy-1", "provenance": {"pid": 0}}
        if prompt.startswith("chatter"):
            say(sys.stdout, "loading weights ... {not json")
            say(sys.stderr, "warming up")
        if prompt.startswith("crash once") and not log.with_suffix(".crashed").exists():
            log.with_suffix(".crashed").touch()
            say(sys.stderr, "Segmentation fault (toy)")
            os._exit(11)
        if prompt == "crash":
            os._exit(12)
        if prompt == "hang":
            time.sleep(60)
        word = prompt.partition(" ")[0]
        if word in ("refuse", "block", "fail"):
            status = {"refuse": "refused", "block": "blocked", "fail": "failed"}[word]
            answer |= {"status": status, "detail": f"The toy will not: {prompt}."}
        elif word == "garbage":
            Path(job["output_path"]).write_bytes(b"no image")
        else:
            seed = f"{prompt}/{job['seed']}/{job['parameters']}"
            Path(job["output_path"]).write_bytes(png(seed, int(job["parameters"].get("side_px", 48))))
        say(sys.stdout, json.dumps(answer))


if __name__ == "__main__":
    main()
