"""Golden images: real files of both classes that travel in the bundle with the detector's own logits.

Whoever runs the bundle, on whatever machine and runtime, can ask for these files and must get these numbers. They are
spread over the range of logits of each class; files whose licence is known go first, because a bundle is passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from forgery_det.core.artefacts import sha256_bytes, write_bytes, write_json
from forgery_det.core.manifest import Manifest
from forgery_det.core.stored import read_stored
from forgery_det.core.types import GENERATED, REAL
from forgery_det.export.parity import Answers

FOLDER, FILE_NAME = "golden", "golden.json"
N_GOLDEN = 8

_SUFFIXES = {"jpeg": ".jpg"}


def write_golden(images: Manifest, eager: Answers, bundle: Path, n: int = N_GOLDEN) -> tuple[Path, ...]:
    """Copy `n` images and write `golden/golden.json`.

    Args:
        images: The rows that were measured.
        eager: The detector's answers to them.
        bundle: Folder of the bundle.
        n: Images, half of each class as far as there are.

    Returns:
        The files written.
    """
    rows = {row["image_id"]: row for row in images.frame.iter_rows(named=True)}
    written, entries = [], []
    for index in chosen(eager, {key: str(row["licence"]) for key, row in rows.items()}, n):
        row = rows[eager.image_id[index]]
        data = read_stored(images.image_file(row["path"]))
        kind = "generated" if row["label"] == GENERATED else "real"
        name = f"{kind}-{row['image_id'][:12]}{_SUFFIXES.get(row['codec'], '.' + row['codec'])}"
        write_bytes(bundle / FOLDER / name, data)
        written.append(bundle / FOLDER / name)
        entries.append(
            {
                "file": name, "sha256": sha256_bytes(data), "label": row["label"],
                "logit": float(eager.logit_N[index]), "score": float(eager.score_N[index]),
                "source": row["source"], "licence": row["licence"],
            }
        )  # fmt: skip
    path = bundle / FOLDER / FILE_NAME
    write_json(path, entries)
    return (*written, path)


def chosen(eager: Answers, licences: dict[str, str], n: int) -> Sequence[int]:
    """Return the positions of the golden images: spread over the logits of each class, known licences first."""
    found: list[int] = []
    for label in (REAL, GENERATED):
        wanted = n // 2
        mine = np.flatnonzero(eager.label_N == label)
        known = [k for k in mine if not licences[eager.image_id[k]].lower().startswith("unknown")]
        pool = np.array(known if len(known) >= wanted else mine)
        pool = pool[np.argsort(eager.logit_N[pool], kind="stable")]
        places = np.unique(np.linspace(0, len(pool) - 1, min(wanted, len(pool))).round().astype(int))
        found += [int(pool[place]) for place in places]
    return found
