"""Collects the measured differences of the parity tests and shows them as a table at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_ROWS = pytest.StashKey[dict[str, dict[str, float]]]()

Note = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = {}


@pytest.fixture
def note_parity(request: pytest.FixtureRequest) -> Note:
    """Return `note(reference_name, atol=..., formula=..., end_to_end=...)`; differences of one reference add up."""

    def note(reference: str, **values: float) -> None:
        row = request.config.stash[_ROWS].setdefault(reference, {})
        for name, value in values.items():
            row[name] = max(value, row.get(name, value))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[_ROWS]
    if not rows:
        return
    terminalreporter.section("largest difference from the official logits")
    for reference, values in sorted(rows.items()):
        numbers = "  ".join(
            f"{name} {values[name]:.1e}" for name in ("formula", "end_to_end", "atol") if name in values
        )
        terminalreporter.write_line(f"{reference:<26}{numbers}")
