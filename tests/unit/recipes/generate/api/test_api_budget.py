"""Budgets in images and money: never overshot, counted over runs, kills and processes, and by what was really paid."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.generate.api.budget import Budget, BudgetError, BudgetSpec, ledger_path
from forgery_det.recipes.generate.api.client import ApiGenerator
from forgery_det.recipes.generate.api.prices import TOKEN_KINDS, Price, read_price
from forgery_det.recipes.generate.job import Outcome
from forgery_det.recipes.generate.registry import generator_cards, resolve_generator
from synth import image_server as faults
from synth.api_jobs import Make, job, no_inputs
from synth.image_server import ImageServer

API_KINDS = ("google_images", "openai_images", "seedream")
QUARTER = {"per_image_usd": {"default": 0.25}}
PROMPTS = [f"prompt {index}" for index in range(12)]


def run_until_spent(generator: ApiGenerator, text: str, first: int = 0) -> dict[str, Outcome]:
    """Run until the budget is reached; return the images by their prompts."""
    came: list[tuple[str, Outcome]] = []
    outcomes = generator.run([job(prompt) for prompt in PROMPTS[first:]], no_inputs)
    with pytest.raises(BudgetError, match=text):
        came.extend((str(done.prompt), outcome) for done, outcome in outcomes if outcome.kind == "image")
    return dict(came)


def test_images_are_not_overshot_whatever_the_concurrency(server: ImageServer, make: Make) -> None:
    server.delay_s = 0.02
    generator = make(budget=BudgetSpec(images=5), concurrency=4)
    came = run_until_spent(generator, r"Budget of 5 images reached after 5 images: raise `budget.images`")
    assert len(came) == server.made.total() == server.counts.total() == 5


def test_money_is_not_overshot_whatever_the_concurrency(server: ImageServer, make: Make) -> None:
    server.delay_s = 0.02
    generator = make(price=QUARTER, budget=BudgetSpec(usd=1.1), concurrency=4)
    text = r"Budget of 1.1 USD reached after 4 images \(1.00 USD spent, the next may cost 0.25\): raise `budget.usd`"
    assert len(run_until_spent(generator, text)) == server.counts.total() == 4


def test_the_count_goes_on_in_the_next_run(server: ImageServer, make: Make, tmp_path: Path) -> None:
    ledger = ledger_path(tmp_path, "out", "source")
    spent = run_until_spent(make(price=QUARTER, budget=BudgetSpec(usd=0.5, ledger=ledger)), "after 2 images")
    assert len(spent) == 2
    assert run_until_spent(make(price=QUARTER, budget=BudgetSpec(usd=0.5, ledger=ledger)), "after 2 images", 4) == {}
    more = run_until_spent(make(price=QUARTER, budget=BudgetSpec(usd=1.0, ledger=ledger)), "after 4 images", 4)
    assert len(more) == 2
    assert server.counts.total() == 4


def test_what_the_api_counted_wins_over_the_table(server: ImageServer, make: Make) -> None:
    details = {"input_tokens_details": {"text_tokens": 1000, "image_tokens": 0}}
    server.usage = {"input_tokens": 1000, "output_tokens": 2000, "total_tokens": 3000, **details}
    price = QUARTER | {"per_million_tokens_usd": {"text_input": 5, "image_output": 30}}
    generator = make(price=price, concurrency=1, budget=BudgetSpec(usd=0.4))
    outcomes = run_until_spent(generator, "after 3 images")  # 3 x 0.065, and 0.25 more would be too much
    facts = [outcome.provenance for outcome in outcomes.values()]
    assert [(one["cost_usd"], one["cost_basis"]) for one in facts] == [(0.065, "usage")] * 3


def test_an_answer_dearer_than_its_estimate_raises_the_estimate() -> None:
    budget = Budget(BudgetSpec(usd=1.0))
    first = budget.reserve("a", 0.1)
    assert first is not None
    budget.settle(first, 0.6, 1)
    with pytest.raises(BudgetError, match=r"the next may cost 0\.6"):
        budget.reserve("b", 0.1)


def test_lost_answers_are_spent_and_refused_requests_are_not(server: ImageServer, make: Make) -> None:
    server.plan(PROMPTS[0], faults.truncated())
    server.plan(PROMPTS[1], faults.status(500), faults.status(500))
    server.plan(PROMPTS[2], faults.moderation_blocked())
    generator = make(price=QUARTER, budget=BudgetSpec(usd=1.0), concurrency=1)
    came = run_until_spent(generator, r"after 4 images \(1.00 USD spent")
    assert list(came) == [PROMPTS[0], PROMPTS[1], PROMPTS[3]]


def test_a_budget_in_money_needs_a_price(server: ImageServer, make: Make) -> None:
    with pytest.raises(ConfigError, match=r"known price of 'toy' .*`usd_per_image` .* or limit `budget.images`"):
        next(iter(make(budget=BudgetSpec(usd=1)).run([job("a fox")], no_inputs)))
    assert server.counts.total() == 0
    known = make(budget=BudgetSpec(usd=0.03), usd_per_image=0.01, concurrency=1)
    assert len(run_until_spent(known, "after 3 images")) == 3


def test_a_request_that_a_kill_cut_off_stays_spent(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    killed = Budget(BudgetSpec(usd=1.0, ledger=ledger))
    done = killed.reserve("a", 0.4)
    assert done is not None
    killed.settle(done, 0.1, 1)
    killed.reserve("b", 0.4)  # and nothing more: the process is gone
    with ledger.open("ab") as file:
        file.write(b'{"id": "cut sho')
    resumed = Budget(BudgetSpec(usd=1.0, ledger=ledger))
    assert resumed.reserve("c", 0.5) is not None
    assert (round(resumed.spent_usd, 6), resumed.spent_images) == (1.0, 3)
    with pytest.raises(BudgetError, match=r"All runs of this dataset are counted, in .*ledger\.jsonl"):
        Budget(BudgetSpec(usd=1.0, ledger=ledger)).reserve("d", 0.1)
    lines = [json.loads(line) for line in ledger.read_bytes().splitlines() if line and not line.endswith(b"sho")]
    assert [line["usd"] for line in lines] == [0.4, 0.1, 0.4, 0.5]


def test_two_processes_share_a_ledger(tmp_path: Path) -> None:
    spec = BudgetSpec(images=3, ledger=tmp_path / "ledger.jsonl")
    one, other = Budget(spec), Budget(spec)
    taken = [one.reserve("a", None), other.reserve("b", None), one.reserve("c", None)]
    assert None not in taken
    assert taken[0] is not None
    one.settle(taken[0], 0.0, 0)
    assert other.reserve("d", None) is not None
    threading.Timer(0.01, one.settle, (taken[2], 0.0, 1)).start()
    with pytest.raises(BudgetError, match="after 3 images"):
        one.reserve("e", None)


def test_waiting_for_requests_in_flight_ends_when_the_run_stops() -> None:
    budget, stop = Budget(BudgetSpec(images=1)), threading.Event()
    assert budget.reserve("a", None) is not None
    stop.set()
    assert budget.reserve("b", None, stop) is None


@pytest.mark.parametrize("given", [{"images": -1}, {"usd": -0.5}])
def test_a_budget_below_zero_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="of 0 or more"):
        BudgetSpec(**given)


def test_a_price_of_the_card_is_checked() -> None:
    assert read_price({"source": "s", "as_of": None, "per_image_usd": {"default": 1}}, "toy").at_most_usd(()) == 1
    with pytest.raises(ConfigError, match=r"generators\.yaml: toy\.price"):
        read_price({"per_image": 3}, "toy")


def test_the_prompt_is_part_of_the_estimate() -> None:
    price = Price(per_image_usd={"default": 0.1}, per_million_tokens_usd={"text_input": 10})
    assert price.at_most_usd((), prompt_characters=2000) == pytest.approx(0.11)
    assert price.of_tokens_usd({"text_input": 100, "image_output": 5}) is None


def test_prices_of_the_cards_can_be_read() -> None:
    cards = {name: card for name, card in generator_cards().items() if card.kind in API_KINDS}
    assert len(cards) >= 10
    for name, card in cards.items():
        price = read_price(card.price, name)
        assert set(price.per_million_tokens_usd) <= set(TOKEN_KINDS), name
        assert not card.price or (price.source.startswith("https://") and price.as_of), name
        # No generator is asked anything: building one is cheap and needs no key.
        assert resolve_generator({"name": name}).spec(Path(), Path()).create().keeps_budget, name
