from __future__ import annotations

import pytest

from forgery_det.audits import AuditFinding, AuditReport
from forgery_det.cli.tables import print_audit


def finding(name: str, where: str, level: str, **changes: object) -> AuditFinding:
    values = {"value": 0.9, "ci_low": 0.8, "ci_high": 0.95, "limit": 0.6, "n": 40, "detail": f"About {where}."}
    return AuditFinding(name=name, slice=where, level=level, **(values | changes))


def printed(capsys: pytest.CaptureFixture[str], *findings: AuditFinding, **waivers: str) -> str:
    print_audit(AuditReport("d", "0" * 64, 40, {}, findings, waivers))
    return " ".join(capsys.readouterr().out.split())


def test_each_audit_has_a_line_and_every_failure_too(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(
        capsys,
        finding("file_facts", "overall", "pass"),
        finding("file_facts", "generator=a", "fail"),
        finding("file_facts", "generator=b", "fail"),
        finding("file_facts", "generator=c", "pass"),
        finding("missing_files", "problem=missing", "pass", detail="All there."),
    )
    assert "file_facts generator=a FAIL 0.900 0.800-0.950 40" in text
    assert "generator=b" in text
    assert "About generator=b." not in text
    assert "generator=c" not in text
    assert "missing_files problem=missing pass" in text
    assert "- FAIL file_facts (generator=a): About generator=a." in text
    assert "All there." not in text
    assert text.endswith(
        "Audit FAILED: file_facts. Findings: 2 failed, 0 warn, 3 pass, 0 not estimable; all of them in audit.json."
    )


def test_the_overall_finding_stands_for_its_equals(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, finding("origin_facts", "generator=a", "warn"), finding("origin_facts", "overall", "warn"))
    assert "- warn origin_facts: About overall." in text
    assert "generator=a" not in text
    assert "Audit passed." in text


def test_what_is_not_estimable_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(
        capsys, finding("label_noise", "overall", "not_estimable", value=None, ci_low=None, detail="Too weak.")
    )
    assert "- n/a label_noise: Too weak." in text


def test_waivers_are_printed_used_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(
        capsys,
        finding("file_facts", "overall", "fail", waived="by design"),
        finding("missing_files", "overall", "pass"),
        file_facts="by design",
        missing_files="old",
    )
    assert "FAIL waived" in text
    assert "waived: file_facts: by design" in text
    assert "waived: missing_files: old (it did not fail: the waiver can go)" in text
    assert "Audit passed." in text
