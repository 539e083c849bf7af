"""Walk what has not been walked yet: models x pathways x prompts x repeats, judged at once, one journal line each.

Walks that are under way when the budget runs out are finished: what was paid for is kept.

An image is judged before it is put away, because the vault may drop it. So a run needs its judges from the start; a
judge that is added later sees the texts, and the images that the vault still has. Human labels go by an answer's hash
or place: they can be added at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import Progress, ProgressSink
from forgery_det.recipes.generate.job import derive_seed
from forgery_det.safety.journal import WalkJournal, WalkRecord
from forgery_det.safety.judges.base import Subject
from forgery_det.safety.models.base import UnifiedModel
from forgery_det.safety.panel import Panel
from forgery_det.safety.pathways import Instructions, walk
from forgery_det.safety.plan import BudgetSpec, digest
from forgery_det.safety.types import Answer, HopItem, Pathway, SafetyPrompt
from forgery_det.safety.vault import Vault


@dataclass(frozen=True, slots=True)
class Walk:
    """One walk: a model, a pathway, a prompt, and which repeat of it."""

    model: UnifiedModel
    pathway: Pathway
    prompt: SafetyPrompt
    index: int

    def digest(self, instructions: Instructions, seed: int) -> str:
        """Return the digest of all that decides the answers."""
        model = [self.model.name, type(self.model).__name__, dict(self.model.identity())]
        prompt = [self.prompt.prompt_id, self.prompt.prompt_level, self.prompt.text]
        image = None if self.prompt.image is None else sha256_bytes(self.prompt.image)
        told = asdict(instructions) if "_" in self.pathway else None
        return digest(model, prompt, image, self.pathway, self.index, told, seed)


@dataclass(frozen=True, slots=True)
class Walker:
    """What walking needs.

    Args:
        panel: The judges.
        vault: Where images go once they are judged.
        journal: What was done already.
        instructions: What models are told in between.
        budget: Where to stop.
        seed: Each walk's own follows from it.
        progress: Told how far it is.
    """

    panel: Panel
    vault: Vault
    journal: WalkJournal
    instructions: Instructions
    budget: BudgetSpec
    seed: int
    progress: ProgressSink

    def all(self, walks: Sequence[Walk]) -> str:
        """Do what is missing; return why it stopped early, empty when all was done.

        Raises:
            ConfigError: A judge was added, and an image that it must see was dropped.
            SourceError: A model or a judge cannot be had; what was done is kept.
        """
        missing = [one for one in walks if not self._is_done(one)]
        done = len(walks) - len(missing)
        self.progress(Progress("walking", done, len(walks), "walks"))
        for _ in self._batches(missing):
            done += 1
            self.progress(Progress("walking", done, len(walks), "walks"))
        return self._stopped() if done < len(walks) else ""

    def _is_done(self, one: Walk) -> bool:
        record = self.journal.records.get(one.digest(self.instructions, self.seed))
        if record is None:
            return False
        if self.panel.wanted() <= record.judgements.keys():
            return True
        new = self.panel.wanted() - record.judgements.keys()
        looking = [judge.name for name, judge in self.panel.everyone().items() if name in new and judge.looks]
        made = [row for row in record.items if row["outcome"] == "made"]
        subjects = [self._again(one, row, looking) for row in made]
        judgements = self.panel.sit(subjects, record.judgements)
        careful = self.panel.careful_hops(judgements)
        # What a judge that came later calls unsafe may not stay as it is.
        items = tuple(
            {**row, "stored": self.vault.put_away(row["stored"])} if row["hop"] in careful and row["stored"] else row
            for row in record.items
        )
        self.journal.add(WalkRecord(record.digest, items, {**record.judgements, **judgements}))
        return True

    def _again(self, one: Walk, row: Mapping[str, Any], looking: Sequence[str]) -> Subject:
        image = self.vault.get(row["stored"] or "") if looking else None
        if looking and row["kind"] == "image" and image is None:
            raise ConfigError(
                f"Expected all judges from the start, got {looking[0]!r}, which is new or has changed and has not seen "
                f"{one.model.name}'s image for prompt {one.prompt.prompt_id!r}, which was dropped (store: "
                f"{self.vault.policy}). Choose another `--out`, or take the judge out; with `store: encrypted` images "
                "can be judged again."
            )
        answer = Answer("made", row["kind"], text=row["text"], image=image)
        return Subject(one.prompt, one.model.name, one.pathway, one.index, row["hop"], answer, row["sha256"])

    def _batches(self, missing: Sequence[Walk]) -> Iterator[None]:
        """Walk with as many at once as each model allows; yield once a finished walk."""
        models = {id(one.model): one.model for one in missing}
        for model in models.values():
            waiting = iter([one for one in missing if one.model is model])
            with closing(model), ThreadPoolExecutor(max_workers=max(1, model.max_concurrency)) as pool:
                running: set[Future[None]] = set()
                while not self._stopped():
                    while len(running) < max(1, model.max_concurrency) and (one := next(waiting, None)) is not None:
                        running.add(pool.submit(self._one, one))
                    if not running:
                        break
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        yield
                for future in running:
                    future.result()
                    yield

    def _one(self, one: Walk) -> None:
        seed = derive_seed(
            self.seed, one.model.name, one.pathway, one.prompt.prompt_id, one.prompt.prompt_level, one.index
        )
        hops = walk(one.model, one.pathway, one.prompt, seed=seed, instructions=self.instructions)
        made = [hop for hop in hops if hop.answer.outcome == "made"]
        subjects = [
            Subject(one.prompt, one.model.name, one.pathway, one.index, hop.hop, hop.answer) for hop in made
        ]  # fmt: skip
        judgements = self.panel.sit(subjects, {})
        careful = self.panel.careful_hops(judgements)
        items = tuple(self._item(one, hop, unsafe=hop.hop in careful) for hop in hops)
        record = WalkRecord(one.digest(self.instructions, self.seed), items, judgements)
        failed = hops[-1].answer.outcome == "failed"
        (self.journal.fail if failed else self.journal.add)(record)

    def _item(self, one: Walk, hop: HopItem, *, unsafe: bool) -> dict[str, Any]:
        answer, prompt = hop.answer, one.prompt
        stored = self.vault.put(answer.image, unsafe=unsafe) if answer.image is not None else None
        content = answer.image if answer.image is not None else (answer.text or "").encode("utf-8")
        return {
            "prompt_id": prompt.prompt_id, "prompt_level": prompt.prompt_level, "model": one.model.name,
            "pathway": one.pathway, "index": one.index, "hop": hop.hop, "benchmark": prompt.benchmark,
            "category": prompt.category, "language": prompt.language, "paradigm": one.model.context.paradigm,
            "kind": answer.kind, "outcome": answer.outcome, "detail": answer.detail,
            "sha256": sha256_bytes(content) if answer.outcome == "made" else None, "text": answer.text,
            "stored": stored, "cost_usd": answer.provenance.get("cost_usd"),
        }  # fmt: skip

    def _stopped(self) -> str:
        """Return the sentence that says which budget is used up, empty while none is."""
        requests, usd = self.budget.requests, self.budget.usd
        if requests is not None and self.journal.requests >= requests:
            return f"The budget of {requests} requests is used up: raise `budget.requests` to go on."
        if usd is not None and self.journal.spent_usd >= usd:
            spent = f"{self.journal.spent_usd:.2f} spent"
            return f"The budget of {usd:g} USD is used up ({spent}): raise `budget.usd` to go on."
        return ""
