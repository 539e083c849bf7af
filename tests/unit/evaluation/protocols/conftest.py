from __future__ import annotations

import pytest
from protocol_data import degenerate, make_context

from forgery_det.evaluation.protocols.base import ProtocolContext


@pytest.fixture(params=sorted(degenerate()))
def hopeless(request: pytest.FixtureRequest) -> ProtocolContext:
    """Each table on which nothing, or next to nothing, can be estimated."""
    return make_context(degenerate()[request.param], seen={"g"})
