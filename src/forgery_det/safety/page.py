"""The report of a safety run: summary first, then rates, pathways, judges, detectability, and what was left out.

Images are not in it. Texts of prompts are neither: tables name `prompt_id`s. So it can be sent to a reader who did not
ask to see what a benchmark of harmful prompts produces; what the run kept lies in `media/`, by the plan's policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from forgery_det.core.runs import versions
from forgery_det.core.types import MetricRecord
from forgery_det.metrics.estimate import Estimate
from forgery_det.reporting.data import Caveat, Level, Verdict
from forgery_det.reporting.page import Page, write_page
from forgery_det.reporting.sections import NOT_ESTIMABLE, Cell, Section, SectionTable
from forgery_det.reporting.text import number
from forgery_det.safety.contrasts import Contrast
from forgery_det.safety.findings import Findings
from forgery_det.safety.plan import SafetyPlan
from forgery_det.safety.tables import SLICE_KEYS
from forgery_det.safety.types import HOPS
from forgery_det.safety.words import pathway_name, summary, turned_words

REPORT_STEM = "safety"

_TITLES = {
    "unsafe_generation": "Unsafe generation",
    "corrupted_outputs": "Corrupted outputs",
    "reciprocity": "Understanding and generation: what crosses between them",
}
_ORDER = {
    "unsafe_generation": ("rates", "models", "judges", "pathways", "slices", "detectability", "outcomes"),
    "corrupted_outputs": ("rates", "models", "judges", "pathways", "slices", "detectability", "outcomes"),
    "reciprocity": ("pathways", "rates", "judges", "models", "slices", "detectability", "outcomes"),
}
_SIDE_BY_SIDE = 5
"""Most values of a key that a table shows beside each other."""

_SLICE = re.compile(r"model=(?P<model>.*),pathway=(?P<pathway>[a-z_]+)(?:,hop=(?P<hop>[a-z]+))?")


def write_report(plan: SafetyPlan, found: Findings, out: Path, stopped: str) -> None:
    """Write `safety.html`, `safety.md` and figures into the run folder.

    Args:
        plan: What was asked.
        found: What was found.
        out: The run folder.
        stopped: Why the run stopped early; empty when it did not.
    """
    headline, caveats = summary(plan, found)
    if stopped:
        caveats = (Caveat("doubt", f"The run is not finished. {stopped}"), *caveats)
    levels: tuple[Level, ...] = ("ok", "doubt", "problem")
    level = levels[max((levels.index(one.level) for one in caveats), default=0)]
    facts = {
        "Study": plan.study.replace("_", " "),
        "Models": str(found.items["model"].n_unique()),
        "Prompts": str(found.items["prompt_id"].n_unique()),
        "Main judge": plan.main_judge,
        "Unsafe images": {"none": "dropped", "blurred": "kept blurred", "encrypted": "kept encrypted"}[plan.store],
    }
    sections = [one for one in _sections(plan, found) if one.tables]
    config = asdict(plan) | {"path": str(plan.path)}
    page = Page(
        _TITLES[plan.study], facts, Verdict(level, headline, caveats), tuple(sections), {}, config, versions()
    )  # fmt: skip
    write_page(page, out, REPORT_STEM)


def cell(found: Estimate | MetricRecord, *, signed: bool = False) -> Cell:
    """Return a number with its interval and note, as the tables show it."""
    if found.value is None:
        return Cell(NOT_ESTIMABLE, "", found.note)
    interval = ""
    if found.ci_low is not None and found.ci_high is not None:
        interval = f"{number(found.ci_low)}, {number(found.ci_high)}"
    return Cell(f"{found.value:+.3f}" if signed else number(found.value), interval, found.note)


def p_cell(p_value: float | None) -> Cell:
    """Return a p-value as people read it."""
    if p_value is None:
        return Cell("-")
    return Cell("<\N{NO-BREAK SPACE}0.001" if p_value < 0.001 else f"{p_value:.3f}")


def _sections(plan: SafetyPlan, found: Findings) -> Iterable[Section]:
    write = {
        "rates": _rates, "models": _models, "pathways": _pathways, "judges": _judges, "slices": _slices,
        "detectability": _detectability, "outcomes": _outcomes,
    }  # fmt: skip
    return [write[name](found) for name in _ORDER[plan.study]]


def _name(where: str) -> str:
    """Return a slice as people read it."""
    match = _SLICE.fullmatch(where)
    if match is None:
        return where
    hop = f", {match['hop']}" if match["hop"] else ""
    return f"{match['model']}, {pathway_name(match['pathway'])}{hop}"


def _keyed(found: Findings, metric: str) -> dict[str, MetricRecord]:
    return {record.slice: record for record in found.records if record.metric == metric}


def _plain_slices(found: Findings) -> list[tuple[str, str, str, str]]:
    rows = found.main.filter(found.main["hop"] == "output").select("model", "pathway").unique(maintain_order=True)
    return [
        (f"model={model},pathway={pathway},hop=output", model, pathway, f"{model}, {pathway_name(pathway)}")
        for model, pathway in rows.iter_rows()
    ]


def _rates(found: Findings) -> Section:
    columns = {
        "unsafe_rate": "unsafe",
        "corrupted_rate": "corrupted",
        "corrupted_rate@corrected": "corrupted, judge's error taken out",
        "unsafe_rate@drawn": "unsafe of what was drawn",
    }
    by_metric = {metric: _keyed(found, metric) for metric in columns}
    shown = {metric: title for metric, title in columns.items() if by_metric[metric]}
    rows = []
    for where, _, _, name in _plain_slices(found):
        cells = [by_metric[metric].get(where) for metric in shown]
        n = next((str(one.n) for one in cells if one is not None), "0")
        rows.append((name, (Cell(n), *(Cell("-") if one is None else cell(one) for one in cells))))
    explanation = (
        "Three classes, always: safe, unsafe, corrupted. Each rate is the mean over prompts of the share of a prompt's "
        "answers; its 95 % interval treats the answers to one prompt as alike. A model that fails to draw has a low "
        "first column without being safer: read the last one beside it."
    )
    tables: tuple[SectionTable, ...] = (
        SectionTable("Rates at the output", ("model, pathway", "n", *shown.values()), tuple(rows)),
    )
    if found.corruption is not None:
        error = found.corruption
        row = (
            "corruption detector",
            (
                Cell(f"{error.hits} of {error.n_positive}"),
                Cell(f"{error.passes} of {error.n_negative}"),
                Cell(number(error.sensitivity)),
                Cell(number(error.specificity)),
            ),
        )
        head = ("judge", "planted failures found", "good pictures left alone", "sensitivity", "specificity")
        tables += (SectionTable("How good is the corruption detector?", head, (row,), _CORRUPTION_WORDS),)
    return Section("rates", "Safe, unsafe, corrupted", explanation, tables)


_CORRUPTION_WORDS = (
    "Measured on failures planted into good pictures. Rogan and Gladen's estimate takes this error out of the "
    "corrupted rate, and its uncertainty is in the interval (Lang and Reiczigel 2014)."
)


def _models(found: Findings) -> Section:
    tables: list[SectionTable] = []
    if found.order is not None:
        rows = tuple(
            (str(place), (Cell(a), Cell(b)))
            for place, (a, b) in enumerate(zip(found.order.two_class, found.order.drawn, strict=True), start=1)
        )
        words = turned_words(found) or "Both scores give the same order."
        head = ("most unsafe first", "two classes (corrupted counts as safe)", "of what was drawn")
        tables.append(SectionTable("Does a score of two classes rank the models rightly?", head, rows, words))
    if found.contrasts:
        tables.append(
            _contrast_table("Differences between models", found.contrasts, "On the prompts that both answered.")
        )
    words = (
        "Every pair of models on the same prompts, at the output of generation; p by sign flips of prompts, adjusted "
        "by Holm."
    )
    return Section("models", "Models against each other", words, tuple(tables))


def _contrast_table(title: str, contrasts: Sequence[Contrast], words: str) -> SectionTable:
    rows = []
    for one in contrasts:
        where = "" if one.where.startswith("pathway=") else f"{one.where.removeprefix('model=')}: "
        names = f"{pathway_name(one.first)} minus {pathway_name(one.second)}"
        metric = one.metric.replace("_rate", "").replace("@drawn", " of what was drawn")
        rates = one.rates
        cells = (
            Cell(metric), cell(rates.first), cell(rates.second), cell(rates.difference, signed=True), cell(rates.ratio),
            p_cell(rates.p_value), p_cell(one.adjusted_p), Cell(str(rates.n_clusters)),
        )  # fmt: skip
        rows.append((f"{where}{names}", cells))
    head = ("contrast", "rate", "first", "second", "difference", "ratio", "p", "adjusted p", "prompts")
    return SectionTable(title, head, tuple(rows), words)


def _pathways(found: Findings) -> Section:
    tables: list[SectionTable] = []
    if found.amplified:
        words = (
            "The rate at the output of a coupled pathway less that of the function alone, on the same prompts. Above "
            "0: the signal grows when one function feeds the other."
        )
        tables.append(_contrast_table("Amplification", found.amplified, words))
    unsafe, rows = _keyed(found, "unsafe_rate"), []
    several = found.main["pathway"].n_unique() > 1
    for model, pathway in found.main.select("model", "pathway").unique(maintain_order=True).iter_rows():
        cells = [unsafe.get(f"model={model},pathway={pathway},hop={hop}") for hop in HOPS]
        if several or any(one is not None and one.value for one in cells[:2]):
            shown = tuple(Cell("-") if one is None else cell(one) for one in cells)
            rows.append((f"{model}, {pathway_name(pathway)}", shown))
    if rows:
        words = (
            "Unsafe rate of what goes in, what passes between the functions, and what comes out. A dash: nothing was "
            "judged there."
        )
        tables.append(SectionTable("Hop by hop", ("model, pathway", *HOPS), tuple(rows), words))
    first = _keyed(found, "first_unsafe_hop")
    if first:
        names = sorted({where.rsplit(",hop=", 1)[0] for where in first})
        rows = [
            (
                _name(name),
                tuple(cell(first[f"{name},hop={hop}"]) for hop in HOPS),
            )
            for name in names
        ]
        words = "Of the requests whose output is unsafe: the hop at which a judge first called the chain unsafe."
        tables.append(SectionTable("Where the signal first appears", ("model, pathway", *HOPS), tuple(rows), words))
    words = "Isolated functions, and functions that feed each other (Wang and Huang 2026, arXiv 2603.27332)."
    return Section("pathways", "Pathways", words, tuple(tables))


def _judges(found: Findings) -> Section:
    by_judge = [one for one in found.records if one.metric == "unsafe_rate" and one.slice.startswith("judge=")]
    judges = list(dict.fromkeys(one.slice.split(",model=", 1)[0] for one in by_judge))
    if len(judges) < 2:
        return Section("judges", "Judges", "")
    places = list(dict.fromkeys(one.slice.split(",model=", 1)[1] for one in by_judge))
    values = {one.slice: one for one in by_judge}
    rows = []
    for place in places:
        cells = [values.get(f"{judge},model={place}") for judge in judges]
        rows.append((_name(f"model={place}"), tuple(Cell("-") if one is None else cell(one) for one in cells)))
    side = SectionTable(
        "Unsafe rate under each judge",
        ("model, pathway", *(judge.removeprefix("judge=") for judge in judges)),
        tuple(rows),
    )
    pairs = tuple(
        (f"{a} and {b}", (Cell(str(one.n)), cell(one.kappa), cell(one.equal))) for a, b, one in found.agreements
    )
    agree = SectionTable("Do they agree?", ("judges", "answers", "Cohen's kappa", "equal verdicts"), pairs)
    words = "Changing the judge alone moves rates; a rate that is reported without its judge means little."
    return Section("judges", "Judges", words, (side, agree))


def _slices(found: Findings) -> Section:
    tables = []
    unsafe = _keyed(found, "unsafe_rate")
    for key in SLICE_KEYS:
        rows: dict[str, dict[str, MetricRecord]] = {}
        for where, one in unsafe.items():
            place, given, value = where.partition(f",{key}=")
            if given and place.endswith("hop=output"):
                rows.setdefault(_name(place.removesuffix(",hop=output")), {})[value] = one
        if rows:
            tables.append(_slice_table(key.replace("_", " "), rows))
    return Section("slices", "Unsafe rate by kind of prompt", "At the output, by the main judge.", tuple(tables))


def _slice_table(key: str, rows: Mapping[str, Mapping[str, MetricRecord]]) -> SectionTable:
    """Return values beside each other where they are few, otherwise below each other with their n."""
    values = list(dict.fromkeys(value for of_row in rows.values() for value in of_row))
    if len(values) <= _SIDE_BY_SIDE:
        heads = []
        for value in values:
            counts = sorted(of_row[value].n for of_row in rows.values() if value in of_row)
            heads.append(f"{value}, n = {counts[0] if counts[0] == counts[-1] else f'{counts[0]} to {counts[-1]}'}")
        beside = tuple(
            (name, tuple(cell(of_row[value]) if value in of_row else Cell("-") for value in values))
            for name, of_row in rows.items()
        )
        return SectionTable(f"By {key}", ("model, pathway", *heads), beside)
    below = tuple(
        (f"{name}: {value}", (Cell(str(one.n)), cell(one)))
        for name, of_row in rows.items()
        for value, one in of_row.items()
    )
    return SectionTable(f"By {key}", (f"model, pathway: {key}", "n", "unsafe"), below)


def _detectability(found: Findings) -> Section:
    rates = _keyed(found, "detection_rate")
    rows = tuple(
        (where.replace("=", " ").replace(",", ", "), (Cell(str(one.n)), cell(one))) for where, one in rates.items()
    )
    words = (
        "Share of the images that the detector of generated images calls generated at its threshold for 5 % false "
        "alarms. An unsafe image that is not found is the case that matters most."
    )
    tables = (SectionTable("Detection rate", ("images", "n", "found"), rows),) if rows else ()
    return Section("detectability", "Are these images detected?", words, tables)


def _outcomes(found: Findings) -> Section:
    rows = []
    metrics = ("refused_rate", "blocked_rate", "failed_rate")
    values = {metric: _keyed(found, metric) for metric in metrics}
    for where in values["refused_rate"]:
        cells = tuple(cell(values[metric][where]) for metric in metrics)
        rows.append((_name(where), (Cell(str(values["refused_rate"][where].n)), *cells)))
    words = "Shares of the requests; none counts as a safe answer. The same command tries failed ones again."
    table = SectionTable("Outcomes", ("model, pathway, hop", "requests", "refused", "blocked", "failed"), tuple(rows))
    return Section("outcomes", "Refused, blocked, failed", words, (table,))
