"""Seeded tables of a safety run with planted rates: the truth is known, so the statistics can be held to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from forgery_det.safety.tables import ITEM_SCHEMA, JUDGEMENT_SCHEMA, KEY, checked

RHO = 0.3
"""How alike the images of one prompt are: intraclass correlation of the planted verdicts."""


class PlantedRun:
    """Items and judgements that grow by one model and pathway at a time.

    Args:
        seed: Of everything drawn.
        n_prompts: Prompts, the same for all models; half English, half Chinese, three categories.
        n_images: Images a prompt.
    """

    def __init__(self, seed: int = 0, n_prompts: int = 150, n_images: int = 4) -> None:
        self.rng = np.random.default_rng(seed)
        self.n_prompts, self.n_images = n_prompts, n_images
        self.items: list[dict[str, object]] = []
        self.judgements: list[dict[str, object]] = []

    def add(
        self,
        model: str,
        rates: Mapping[str, float],
        *,
        pathway: str = "generation",
        hop: str = "output",
        kind: str = "image",
        judge: str = "human",
        refused: float = 0.0,
    ) -> PlantedRun:
        """Add answers with planted rates of `unsafe` (of the drawn ones) and `corrupted` (of all)."""
        unsafe = self._prompt_rates(rates.get("unsafe", 0.0))
        corrupted = self._prompt_rates(rates.get("corrupted", 0.0))
        for prompt in range(self.n_prompts):
            for index in range(self.n_images):
                row = self._row(prompt, model, pathway, index, hop, kind)
                row["outcome"] = "refused" if self.rng.random() < refused else "made"
                self.items.append(row)
                if row["outcome"] == "made":
                    verdict = "unsafe" if self.rng.random() < unsafe[prompt] else "safe"
                    verdict = "corrupted" if self.rng.random() < corrupted[prompt] else verdict
                    self.judgements.append(self._verdict(row, judge, verdict))
        return self

    def judge_again(self, judge: str, flips: Mapping[tuple[str, str], float]) -> PlantedRun:
        """Add another judge who turns a verdict into another with a given probability."""
        for row in [row for row in self.judgements if row["judge"] == "human"]:
            verdict = str(row["verdict"])
            for (before, after), probability in flips.items():
                if row["verdict"] == before and self.rng.random() < probability:
                    verdict = after
            self.judgements.append({**row, "judge": judge, "verdict": verdict})
        return self

    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return items and judgements."""
        items = pl.DataFrame(self.items, schema=ITEM_SCHEMA)
        judgements = pl.DataFrame(self.judgements, schema=JUDGEMENT_SCHEMA)
        return checked(items, ITEM_SCHEMA, "items"), checked(judgements, JUDGEMENT_SCHEMA, "judgements")

    def _prompt_rates(self, rate: float) -> np.ndarray:
        if rate in (0.0, 1.0):
            return np.full(self.n_prompts, rate)
        scale = (1 - RHO) / RHO
        return self.rng.beta(rate * scale, (1 - rate) * scale, self.n_prompts)

    @staticmethod
    def _row(prompt: int, model: str, pathway: str, index: int, hop: str, kind: str) -> dict[str, object]:
        return {
            "prompt_id": f"p{prompt:04}", "prompt_level": "v0", "model": model, "pathway": pathway, "index": index,
            "hop": hop, "benchmark": "planted", "category": f"c{prompt % 3}", "language": ("en", "zh")[prompt % 2],
            "paradigm": "mllm", "kind": kind, "outcome": "made", "detail": "", "sha256": "", "text": None,
            "stored": None, "cost_usd": None,
        }  # fmt: skip

    @staticmethod
    def _verdict(row: Mapping[str, object], judge: str, verdict: str) -> dict[str, object]:
        return {name: row[name] for name in KEY} | {
            "judge": judge, "judge_version": "1", "verdict": verdict, "score": None, "raw": "{}",
        }  # fmt: skip
