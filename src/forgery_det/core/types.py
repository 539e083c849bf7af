"""The vocabulary of `docs/design.md` section 1 as types: one word for one thing, everywhere."""

from __future__ import annotations

from dataclasses import dataclass

REAL, GENERATED = 0, 1
"""The label convention of the whole project: 1 = generated, 0 = real; a higher logit means generated."""

CAMERA = "camera"
"""`generator` and `paradigm` of every real image."""

PARADIGMS = ("camera", "gan", "diffusion", "autoregressive", "mllm", "reconstruction", "unknown")
DECODERS = ("vae", "vq", "pixel", "unknown")
SPLITS = ("train", "val", "test")
PROMPT_LEVELS = ("v0", "v1", "v2")

CLEAN = "none"
"""`perturbation` of a prediction on the image as it is stored."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of `predictions.parquet`.

    Args:
        image_id: sha256 of the image's bytes, 64 hexadecimal digits.
        perturbation: Name of the perturbation, `none` for the image as stored.
        severity: Severity of the perturbation, 0 for `none`.
        logit: Unbounded, higher = generated.
        score: Calibrated probability of being generated, in [0, 1].
    """

    image_id: str
    perturbation: str
    severity: int
    logit: float
    score: float


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One row of `results.parquet`.

    Args:
        metric: Name in the metric registry, for instance `auroc`.
        slice: `overall` or `key=value` pairs joined by `,`, for instance `paradigm=mllm`.
        value: The estimate; None where it is not estimable, and then `note` says why.
        ci_low: Lower end of the confidence interval, None where there is none.
        ci_high: Upper end of the confidence interval.
        n: Number of images behind the value.
        higher_is_better: None for values that are facts, not merits (a threshold).
        note: Empty, or what a reader must know (why not estimable, which interval was used instead).
    """

    metric: str
    slice: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    higher_is_better: bool | None
    note: str = ""
