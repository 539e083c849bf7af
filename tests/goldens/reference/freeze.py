"""Copy what parity tests need of the measured references into this folder: `python freeze.py REFERENCES [NAME ...]`.

A golden is `<name>.json`: one top-level key a line, one tensor of the state dict a line. Left out are the outputs for
stored float16 inputs, because the formula input checks the network alone already. Constants that the weights rule does
not make (fixed filters) are taken from `inputs.npz`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LEFT_OUT = ("weights_rule", "n_parameters_in_state_dict", "noise", "environment", "environment_extra")


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def freeze(folder: Path) -> None:
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    for key in LEFT_OUT:
        reference.pop(key, None)
    for output in reference["outputs"].values():
        output.pop("network_logits", None)
    constants = {}
    if (folder / "inputs.npz").is_file():
        with np.load(folder / "inputs.npz") as stored:
            constants = {name: stored[name] for name in stored.files if name.startswith("const/")}
    reference["constants"] = {
        name.removeprefix("const/"): {"shape": list(value.shape), "values": [float(f"{x:.9g}") for x in value.flat]}
        for name, value in constants.items()
    }
    state = reference.pop("state_dict")
    lines = [f"{json.dumps(key)}: {compact(value)}" for key, value in reference.items()]
    lines.append('"state_dict": [\n' + ",\n".join(compact(entry) for entry in state) + "\n]")
    (HERE / f"{folder.name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for name in sys.argv[2:] or sorted(path.parent.name for path in root.glob("*/reference.json")):
        freeze(root / name)
