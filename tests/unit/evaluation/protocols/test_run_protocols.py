from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest
from protocol_data import make_context, real, reals, row

from forgery_det.core.errors import ConfigError, UnknownNameError
from forgery_det.evaluation.protocols.registry import PROTOCOLS
from forgery_det.evaluation.protocols.run import DEFAULT_PROTOCOLS, check_protocols, option_names, run_protocols


def test_the_order_of_the_declaration_is_kept_and_each_stage_is_timed() -> None:
    stages: list[str] = []

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        stages.append(name)
        yield

    checked = check_protocols({"temporal": None, "false_alarm": {"operating_points": ["fpr_5pct"]}})
    results = run_protocols(checked, make_context(reals(10)), stage)
    assert stages == ["protocol.temporal", "protocol.false_alarm"]
    assert [result.section.name for result in results] == ["temporal", "false_alarm"]
    assert {record.metric for record in results[1].records} == {"fpr@fpr_5pct"}


def test_dates_of_yaml_become_texts() -> None:
    assert check_protocols({"temporal": {"cutoff": date(2025, 1, 31)}}) == {"temporal": {"cutoff": "2025-01-31"}}


@pytest.mark.parametrize(
    ("declared", "error", "text"),
    [
        ({"prompt_lenght": {}}, UnknownNameError, "Unknown protocol 'prompt_lenght': did you mean 'prompt_length'"),
        (
            {"temporal": {"cutof": "x"}},
            ConfigError,
            "Unknown option 'cutof' of protocol 'temporal': did you mean 'cut",
        ),
        ({"temporal": "year"}, ConfigError, "Expected the options of protocol 'temporal' as a mapping, got 'year'"),
        (["temporal"], ConfigError, r"Expected `protocols` as a mapping of names to options, got \['temporal'\]"),
    ],
)
def test_what_is_misspelt_is_refused(declared, error, text) -> None:
    with pytest.raises(error, match=text):
        check_protocols(declared)


def test_the_defaults_are_valid() -> None:
    assert set(check_protocols(DEFAULT_PROTOCOLS)) <= set(PROTOCOLS)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_protocol_keeps_the_contract(name: str) -> None:
    protocol = PROTOCOLS.get(name)
    assert protocol.__doc__
    for option in option_names(protocol):
        assert f"{option}:" in protocol.__doc__, option
    context = make_context([row(i, 1.0 + i / 20, prompt_words=4 + i) for i in range(30)] + reals(30), seen={"g"})
    result = protocol(context)
    assert result.section.name == name
    assert len({(r.metric, r.slice) for r in result.records}) == len(result.records)
    for table in result.section.tables:
        assert all(len(cells) == len(table.columns) - 1 for _, cells in table.rows), table.title
    assert len({chart.name for chart in result.section.charts}) == len(result.section.charts)


@pytest.mark.parametrize("name", sorted(set(DEFAULT_PROTOCOLS)))
def test_perturbed_copies_and_other_splits_do_not_count(name: str) -> None:
    rows = [row(i, 1.0 + i / 20, prompt_words=4 + i) for i in range(30)] + reals(30)
    copies = [r | {"perturbation": "jpeg", "severity": 3, "logit": -9.0} for r in rows]
    other = [real(7000 + i, 9.0, split="val") for i in range(10)]
    plain, full = make_context(rows), make_context(rows + copies + other)
    full = dataclasses.replace(full, manifest=plain.manifest)
    assert PROTOCOLS.get(name)(plain).records == PROTOCOLS.get(name)(full).records
