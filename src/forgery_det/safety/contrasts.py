"""Contrasts of a safety run, all paired on prompts: models against each other, coupled against isolated pathways.

- *Models*: the difference of a rate between two models on the prompts that both answered, Holm over all pairs.
- *Amplification*: for one model, the rate at the output of a coupled pathway less that of the isolated one, and over
  it (Wang and Huang 2026, arXiv 2603.27332): does the signal grow when understanding feeds generation, or the other
  way round?
- *Ranking*: the order of the models by a score of two classes beside the order by `unsafe_rate@drawn`.
- *First unsafe hop*: of the requests whose output is unsafe, where along the chain the signal first appears.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import polars as pl

from forgery_det.core.types import MetricRecord
from forgery_det.metrics.agreement import Agreement, agreement
from forgery_det.metrics.clustered_rate import PairedRates, clustered_rate, paired_rates
from forgery_det.metrics.comparison import holm
from forgery_det.safety.rates import rate, record
from forgery_det.safety.tables import KEY, prompt_of
from forgery_det.safety.types import HOPS, ISOLATED, Pathway


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two rates on the same prompts.

    Attributes:
        metric: `unsafe_rate`, `corrupted_rate` or `unsafe_rate@drawn`.
        first: Model, or coupled pathway, that is judged.
        second: What it is held against.
        where: The slice both belong to.
        rates: Both rates, difference, ratio and p-value.
        adjusted_p: Holm-adjusted over the contrasts of one table; None where there is no p-value.
    """

    metric: str
    first: str
    second: str
    where: str
    rates: PairedRates
    adjusted_p: float | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Two orders of the same models, most unsafe first.

    Attributes:
        two_class: By `unsafe_rate`, where a corrupted image counts as safe.
        drawn: By `unsafe_rate@drawn`.
        turned: Pairs whose order differs, as the second has it.
    """

    two_class: tuple[str, ...]
    drawn: tuple[str, ...]
    turned: tuple[tuple[str, str], ...]


def model_contrasts(judged: pl.DataFrame, metric: str, *, pathway: Pathway = "generation") -> tuple[Contrast, ...]:
    """Return every pair of models on their common prompts, at the output of a pathway, in the order of the table."""
    output = _output(judged, pathway)
    names = output["model"].unique(maintain_order=True).to_list()
    found = [(a, b, _paired(output, "model", a, b, metric)) for a, b in combinations(names, 2)]
    return _with_holm(metric, f"pathway={pathway},hop=output", found)


def amplification(judged: pl.DataFrame) -> tuple[Contrast, ...]:
    """Return, for each model and coupled pathway, the unsafe rate at its output against the isolated pathway's."""
    found = []
    for (model,), frame in judged.filter(pl.col("hop") == "output").group_by("model", maintain_order=True):
        for coupled, isolated in ISOLATED.items():
            if {coupled, isolated} <= set(frame["pathway"]):
                found.append(
                    (str(model), coupled, isolated, _paired(frame, "pathway", coupled, isolated, "unsafe_rate"))
                )
    adjusted = _adjusted([rates for *_, rates in found])
    return tuple(
        Contrast("unsafe_rate", coupled, isolated, f"model={model}", rates, p)
        for (model, coupled, isolated, rates), p in zip(found, adjusted, strict=True)
    )


def ranking(judged: pl.DataFrame, *, pathway: Pathway = "generation") -> Ranking:
    """Return the order of the models by two classes and by the drawn images alone, ties by name."""
    output = _output(judged, pathway)
    values: dict[str, dict[str, float]] = {"unsafe_rate": {}, "unsafe_rate@drawn": {}}
    for (model,), frame in output.group_by("model", maintain_order=True):
        for metric, of_model in values.items():
            found = rate(frame, metric).value
            if found is not None:
                of_model[str(model)] = found
    both = values["unsafe_rate"].keys() & values["unsafe_rate@drawn"].keys()
    orders = [tuple(sorted(both, key=lambda name: (-of_model[name], name))) for of_model in values.values()]
    turned = tuple((a, b) for a, b in combinations(orders[1], 2) if orders[0].index(a) > orders[0].index(b))
    return Ranking(orders[0], orders[1], turned)


def contrast_records(contrasts: Sequence[Contrast], name: str) -> Iterator[MetricRecord]:
    """Yield the difference, the ratio and the p-values of contrasts as results, named `<name>_difference` and so on."""
    for one in contrasts:
        where = f"{one.where},contrast={one.first} - {one.second}"
        yield record(f"{name}_difference", where, one.rates.difference)
        yield record(f"{name}_ratio", where, one.rates.ratio)
        for metric, p_value in ((f"{name}_p", one.rates.p_value), (f"{name}_p_holm", one.adjusted_p)):
            note = "" if p_value is not None else "not estimable"
            yield MetricRecord(metric, where, p_value, None, None, one.rates.difference.n, None, note)


def first_unsafe_hop(judged: pl.DataFrame) -> Iterator[MetricRecord]:
    """Yield, by model and coupled pathway, the share of unsafe outputs whose chain was first unsafe at each hop."""
    walk = [column for column in KEY if column != "hop"]
    for (model, pathway), frame in judged.group_by("model", "pathway", maintain_order=True):
        if pathway not in ISOLATED:
            continue
        unsafe = frame.filter(pl.col("hop") == "output", pl.col("verdict") == "unsafe").select(walk)
        chain = frame.join(unsafe, on=walk, how="semi").filter(pl.col("verdict") == "unsafe")
        place = chain.with_columns(pl.col("hop").replace_strict(list(HOPS), range(len(HOPS))).alias("place"))
        first = place.group_by(walk, maintain_order=True).agg(pl.col("place").min())
        for index, hop in enumerate(HOPS):
            found = clustered_rate((first["place"] == index).to_numpy(), prompt_of(first))
            yield record("first_unsafe_hop", f"model={model},pathway={pathway},hop={hop}", found)


def judge_agreements(
    judgements: pl.DataFrame, *, n_replicates: int = 1000, seed: int = 0
) -> tuple[tuple[str, str, Agreement], ...]:
    """Return Cohen's kappa of every pair of judges on the items that both judged."""
    known = judgements.filter(pl.col("verdict").is_not_null())
    found = []
    for a, b in combinations(known["judge"].unique(maintain_order=True).to_list(), 2):
        both = known.filter(pl.col("judge") == a).join(known.filter(pl.col("judge") == b), on=list(KEY), suffix="_b")
        verdicts = both["verdict"].to_list(), both["verdict_b"].to_list()
        found.append((a, b, agreement(*verdicts, prompt_of(both), n_replicates=n_replicates, seed=seed)))
    return tuple(found)


def _output(judged: pl.DataFrame, pathway: str) -> pl.DataFrame:
    return judged.filter(pl.col("pathway") == pathway, pl.col("hop") == "output")


def _paired(frame: pl.DataFrame, column: str, first: str, second: str, metric: str) -> PairedRates:
    known = frame.filter(pl.col("verdict").is_not_null())
    if metric == "unsafe_rate@drawn":
        known = known.filter(pl.col("verdict") != "corrupted")
    wanted = "corrupted" if metric == "corrupted_rate" else "unsafe"
    parts = [known.filter(pl.col(column) == name) for name in (first, second)]
    hits = [(part["verdict"] == wanted).to_numpy() for part in parts]
    return paired_rates(hits[0], prompt_of(parts[0]), hits[1], prompt_of(parts[1]))


def _with_holm(metric: str, where: str, found: list[tuple[str, str, PairedRates]]) -> tuple[Contrast, ...]:
    adjusted = _adjusted([rates for *_, rates in found])
    return tuple(
        Contrast(metric, a, b, where, rates, p) for (a, b, rates), p in zip(found, adjusted, strict=True)
    )  # fmt: skip


def _adjusted(rates: Sequence[PairedRates]) -> list[float | None]:
    """Return Holm-adjusted p-values, None where there was none."""
    known = [one.p_value for one in rates if one.p_value is not None]
    values = iter(holm(known).tolist())
    return [None if one.p_value is None else next(values) for one in rates]
