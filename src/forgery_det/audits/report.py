"""What an audit says: findings with a level, a number, its interval, its limit and one sentence that teaches.

Levels: `fail` (the dataset must not be used as it is), `warn` (a doubt that every reader of a result must know),
`pass`, and `not_estimable` (too few images to say; that is no pass). A waiver turns no finding into a pass: the finding
keeps its level and carries the reason why somebody accepts it, and only the verdict of the whole report changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from forgery_det.core.artefacts import write_json
from forgery_det.core.runs import versions

AUDIT_NAME = "audit.json"
FORMAT = 1

Level = Literal["fail", "warn", "pass", "not_estimable"]


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One thing that an audit found.

    Args:
        name: Registry name of the audit.
        slice: `overall`, or `key=value` as in `results.parquet`.
        level: `fail`, `warn`, `pass` or `not_estimable`.
        value: The measured number (an AUROC, a distance, a rate, a count); None where it is not estimable.
        ci_low: Lower end of the 95 % interval, None for counts.
        ci_high: Upper end.
        limit: What the value, or the lower end of its interval, is held against.
        n: Images behind the value.
        detail: One or two sentences for people: what it means and what to do.
        rows: The first rows of a table that backs it.
        waived: Reason of the waiver, empty without one.
    """

    name: str
    slice: str
    level: Level
    value: float | None
    ci_low: float | None
    ci_high: float | None
    limit: float | None
    n: int
    detail: str
    rows: tuple[Mapping[str, Any], ...] = ()
    waived: str = ""

    @property
    def passed(self) -> bool:
        """False only for a failure that nobody waived."""
        return self.level != "fail" or bool(self.waived)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All findings on one dataset; the contents of `audit.json`.

    Args:
        dataset: Folder that was audited.
        manifest_hash: `Manifest.digest()` of it.
        n_images: Rows of the manifest.
        options: Every setting that can change a finding.
        findings: In the order of the audits' names, `overall` first.
        waivers: Audit name -> reason, as the caller gave them.

    Example:
        >>> finding = AuditFinding("class_presence", "overall", "fail", 1, None, None, 0, 9, "No real image in 'test'.")
        >>> AuditReport("d", "0" * 64, 9, {}, (finding,)).passed
        False
    """

    dataset: str
    manifest_hash: str
    n_images: int
    options: Mapping[str, Any]
    findings: tuple[AuditFinding, ...]
    waivers: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True if no finding fails without a waiver."""
        return all(finding.passed for finding in self.findings)

    @property
    def unused_waivers(self) -> tuple[str, ...]:
        """Names of waived audits that did not fail: the waiver can go."""
        failed = {finding.name for finding in self.findings if finding.level == "fail"}
        return tuple(name for name in sorted(self.waivers) if name not in failed)

    def counts(self) -> dict[str, int]:
        """Return how many findings there are of each level."""
        return {
            level: sum(finding.level == level for finding in self.findings)
            for level in ("fail", "warn", "pass", "not_estimable")
        }

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, with the versions of the packages that decide numbers."""
        return {
            "format": FORMAT,
            "passed": self.passed,
            "unused_waivers": list(self.unused_waivers),
            "counts": self.counts(),
            "versions": versions(),
            **asdict(self),
        }

    def write(self, folder: Path) -> Path:
        """Write `audit.json` into a folder atomically; return its path."""
        path = Path(folder) / AUDIT_NAME
        write_json(path, self.to_json())
        return path
