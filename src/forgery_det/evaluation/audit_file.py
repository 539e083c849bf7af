"""Read `audit.json`: the findings of a dataset audit, for the report.

Audits and evaluation are siblings and meet only through this file, so it is checked like any other input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.evaluation.slices import OVERALL
from forgery_det.reporting.data import AuditRow

AUDIT_NAME = "audit.json"
LEVELS = ("fail", "warn", "pass", "not_estimable")


def read_audit(path: Path) -> tuple[AuditRow, ...]:
    """Return the findings of an audit file, or of the `audit.json` in a folder.

    Raises:
        ConfigError: The file is missing, is not JSON, or a finding lacks its name or level.
    """
    path = Path(path)
    if path.is_dir():
        path = path / AUDIT_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Expected an audit file, got none at {path}. Make one with `forgery-det audit`.") from error
    except ValueError as error:
        raise ConfigError(f"Expected JSON, got something else in {path}: {error}") from error
    findings = content.get("findings") if isinstance(content, dict) else None
    if not isinstance(findings, list):
        raise ConfigError(f"Expected an object with a list `findings`, got something else in {path}.")
    return tuple(_row(finding, index, path) for index, finding in enumerate(findings))


def _row(finding: Any, index: int, path: Path) -> AuditRow:
    if not isinstance(finding, Mapping) or not {"name", "level"} <= set(finding):
        raise ConfigError(f"Expected a finding with `name` and `level`, got {finding!r} (finding {index}, {path}).")
    if finding["level"] not in LEVELS:
        raise ConfigError(f"Unknown level {finding['level']!r} ({path}): {did_you_mean(str(finding['level']), LEVELS)}")
    n = _number(finding, "n", path)
    return AuditRow(
        name=str(finding["name"]),
        slice=str(finding.get("slice", OVERALL)),
        level=str(finding["level"]),
        value=_number(finding, "value", path),
        ci_low=_number(finding, "ci_low", path),
        ci_high=_number(finding, "ci_high", path),
        limit=_number(finding, "limit", path),
        n=None if n is None else int(n),
        detail=str(finding.get("detail", "")),
        waived=str(finding.get("waived", "")),
    )


def _number(finding: Mapping[str, Any], key: str, path: Path) -> float | None:
    value = finding.get(key)
    if value is not None and not isinstance(value, (int, float)):
        raise ConfigError(f"Expected `{key}` of finding {finding['name']!r} to be a number, got {value!r} ({path}).")
    return None if value is None else float(value)
