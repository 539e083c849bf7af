from __future__ import annotations

from pathlib import Path

import pytest

from forgery_det.audits import fact_distances
from synth.planted import Planter


@pytest.fixture(autouse=True)
def _fewer_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    """999 permutations are for real datasets; 199 still give p = 0.005."""
    monkeypatch.setattr(fact_distances, "N_PERMUTATIONS", 199)


@pytest.fixture
def planter(tmp_path: Path) -> Planter:
    return Planter(tmp_path)
