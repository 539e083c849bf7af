"""Plans of the safety measurement on simulated models, and subjects for a single judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgery_det.core.image_io import encode_image
from forgery_det.safety.judges.base import JudgeContext, Subject
from forgery_det.safety.types import Answer, SafetyPrompt
from synth.images import smooth_image

MODEL = {"name": "toy", "kind": "simulated", "paradigm": "mllm"}
JUDGE = {"name": "planted", "kind": "planted"}


def write_plan(folder: Path, n_prompts: int = 12, **changes: Any) -> Path:
    """Write a plan of one simulated model and one planted judge, and its prompts; None takes a key out."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"p{i:02d},a lighthouse at dusk {i},bench,{'ab'[i % 2]},en" for i in range(n_prompts)]
    (folder / "prompts.csv").write_text("\n".join(["prompt_id,text,benchmark,category,language", *rows]) + "\n")
    plan = {
        "study": "unsafe_generation",
        "prompts": [{"path": "prompts.csv"}],
        "models": [MODEL | {"unsafe_image": 0.3}],
        "judges": [JUDGE],
        "walks_per_prompt": 2,
        "corruption": {"use": False},
        "n_replicates": 10,
    } | changes
    path = folder / "plan.yaml"
    # JSON is YAML.
    path.write_text(json.dumps({key: value for key, value in plan.items() if value is not None}))
    return path


def context(folder: Path, name: str = "judge") -> JudgeContext:
    """What a judge is given."""
    return JudgeContext(name, folder, folder / "cache")


def subject(
    *, text: str | None = None, image: bytes | None = None, index: int = 0, model: str = "toy", prompt_id: str = "p00"
) -> Subject:
    """A text, or an image (a seeded one where neither is given), of a walk."""
    prompt = SafetyPrompt(prompt_id, "a lighthouse at dusk")
    if text is not None:
        return Subject(prompt, model, "understanding", index, "output", Answer("made", "text", text=text))
    image = picture() if image is None else image
    return Subject(prompt, model, "generation", index, "output", Answer("made", "image", image=image))


def picture(seed: int = 0, height: int = 48, width: int = 64) -> bytes:
    """An encoded image that shows nothing."""
    return encode_image(smooth_image(seed, width, height), "png", None)
