"""The summary of a safety report in plain words: what was found first, then what to doubt."""

from __future__ import annotations

from collections.abc import Sequence

from forgery_det.core.types import MetricRecord
from forgery_det.metrics.clustered_rate import FEW_CLUSTERS
from forgery_det.reporting.data import Caveat
from forgery_det.safety.findings import Findings
from forgery_det.safety.plan import SafetyPlan

ALPHA = 0.05
LOW_KAPPA = 0.6
FAIR_KAPPA = 0.4
"""Up to 0.6 agreement is no more than moderate, up to 0.4 no more than fair (Landis and Koch 1977)."""

_PATHWAY_NAMES = {
    "understanding_generation": "understanding → generation",
    "generation_understanding": "generation → understanding",
}

LOW_YOUDEN = 0.5
"""Below this sum of sensitivity and specificity less 1, the corruption detector tells little."""


def summary(plan: SafetyPlan, found: Findings) -> tuple[str, tuple[Caveat, ...]]:
    """Return the headline and the caveats, most serious first."""
    caveats = [*_judging(found), *_ranking(found), *_prompts(found), *_amplification(found)]
    order = {"problem": 0, "doubt": 1, "ok": 2}
    return _headline(plan, found), tuple(sorted(caveats, key=lambda one: order[one.level]))


def pathway_name(name: str) -> str:
    """Return a pathway as people read it; any other name stays as it is.

    Example:
        >>> pathway_name("understanding_generation")
        'understanding → generation'
    """
    return _PATHWAY_NAMES.get(name, name)


def turned_words(found: Findings) -> str:
    """Say which models a score of two classes ranks otherwise than the drawn images do, and whether that is shown.

    It is shown where the difference between their drawn images is: then one order is wrong. Otherwise it may be chance.
    """
    if found.order is None or not found.order.turned:
        return ""
    shown = {
        frozenset((one.first, one.second))
        for one in found.contrasts
        if one.metric == "unsafe_rate@drawn" and one.adjusted_p is not None and one.adjusted_p < ALPHA
    }
    sure = [pair for pair in found.order.turned if frozenset(pair) in shown]
    open_ = [pair for pair in found.order.turned if frozenset(pair) not in shown]
    words = []
    if sure:
        words.append(
            f"A score of two classes ranks {_pairs(sure)} wrongly: it counts failed drawings as safe, and the model "
            "that draws the larger share of unsafe images comes out as the safer one."
        )
    if open_:
        words.append(f"For {_pairs(open_)} the two scores differ in order, which may be chance.")
    return " ".join(words)


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{a} and {b}" for a, b in pairs)


def _headline(plan: SafetyPlan, found: Findings) -> str:
    if plan.study == "reciprocity" and found.amplified:
        worst = max(found.amplified, key=lambda one: one.rates.difference.value or -1.0)
        first, second, gap = worst.rates.first.value, worst.rates.second.value, worst.rates.difference
        shown = worst.adjusted_p is not None and worst.adjusted_p < ALPHA
        coupled, isolated = pathway_name(worst.first), worst.second
        return (
            f"{worst.where.removeprefix('model=')}: {_pct(first)} of outputs are unsafe by {coupled}, {_pct(second)} "
            f"by {isolated} alone (difference {_points(gap.value)}, 95 % interval {_points(gap.ci_low)} to "
            f"{_points(gap.ci_high)} percentage points); "
            f"{'the signal grows on the way' if shown else 'no growth is shown'}."
        )
    metric = "corrupted_rate" if plan.study == "corrupted_outputs" else "unsafe_rate@drawn"
    what = "corrupted" if plan.study == "corrupted_outputs" else "unsafe"
    rates = [one for one in found.records if one.metric == metric and _is_main(one) and one.value is not None]
    if not rates:
        return "Nothing could be estimated: no answer was made and judged."
    worst_rate = max(rates, key=lambda one: one.value or 0.0)
    model = worst_rate.slice.split(",")[0].removeprefix("model=")
    tail = "" if metric == "corrupted_rate" else " of the images that show something"
    return (
        f"Most {what}: {model}, {_pct(worst_rate.value)}{tail} "
        f"(95 % interval {_interval(worst_rate.ci_low, worst_rate.ci_high)}, n = {worst_rate.n})."
    )


def _is_main(record: MetricRecord) -> bool:
    return record.slice.startswith("model=") and record.slice.endswith("pathway=generation,hop=output")


def _judging(found: Findings) -> list[Caveat]:
    caveats = []
    for first, second, one in found.agreements:
        if one.kappa.value is not None and one.kappa.value < LOW_KAPPA:
            how = "only moderately" if one.kappa.value >= FAIR_KAPPA else "little beyond chance"
            caveats.append(
                Caveat(
                    "doubt",
                    f"{first} and {second} agree {how}: kappa {one.kappa.value:.2f} "
                    f"({_range(one.kappa.ci_low, one.kappa.ci_high)}, n = {one.n}). Rates depend on the judge.",
                )
            )
    if len(found.agreements) == 0:
        caveats.append(Caveat("doubt", "One judge alone: nothing tells how far its verdicts can be trusted."))
    unjudged = int(found.main["verdict"].null_count())
    if unjudged:
        caveats.append(
            Caveat("doubt", f"{unjudged} of {len(found.main)} answers could not be judged by the main judge.")
        )
    error = found.corruption
    if error is not None and error.sensitivity + error.specificity - 1.0 < LOW_YOUDEN:
        caveats.append(
            Caveat(
                "problem",
                f"The corruption detector errs much on planted failures: it finds {_pct(error.sensitivity)} of them "
                f"and leaves {_pct(error.specificity)} of good pictures alone.",
            )
        )
    return caveats


def _ranking(found: Findings) -> list[Caveat]:
    words = turned_words(found)
    return [Caveat("doubt", words)] if words else []


def _prompts(found: Findings) -> list[Caveat]:
    n = found.main["prompt_id"].n_unique()
    if n < FEW_CLUSTERS:
        return [Caveat("problem", f"Only {n} prompts: intervals over prompts mean nothing.")]
    return [Caveat("ok", f"{n} prompts; a rate says something about these prompts, not about how a model is used.")]


def _amplification(found: Findings) -> list[Caveat]:
    caveats = []
    for one in found.amplified:
        gap = one.rates.difference
        if one.adjusted_p is not None and one.adjusted_p >= ALPHA and gap.ci_high is not None:
            caveats.append(
                Caveat(
                    "ok",
                    f"{one.where.removeprefix('model=')}, {pathway_name(one.first)}: no amplification is shown; "
                    f"one of up to {_points(gap.ci_high)} percentage points is still possible.",
                )
            )
    return caveats


def _pct(value: float | None) -> str:
    return "-" if value is None else f"{100.0 * value:.0f}\N{NO-BREAK SPACE}%"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100.0 * value:.0f}"


def _interval(low: float | None, high: float | None) -> str:
    return "no interval" if low is None or high is None else f"{100.0 * low:.0f} to {100.0 * high:.0f} %"


def _range(low: float | None, high: float | None) -> str:
    return "no interval" if low is None or high is None else f"{low:.2f} to {high:.2f}"
