from __future__ import annotations

import sys

import pytest

from forgery_det.core.errors import UnknownNameError
from forgery_det.core.registry import Registry


def test_listing_imports_nothing() -> None:
    registry = Registry("thing", {"b": "wave:open", "a": "module_that_does_not_exist:x"})
    sys.modules.pop("wave", None)
    assert registry.names() == ("a", "b")
    assert list(registry) == ["a", "b"]
    assert "a" in registry
    assert "c" not in registry
    assert len(registry) == 2
    assert "wave" not in sys.modules


def test_get_imports_the_target() -> None:
    assert Registry("thing", {"pi": "math:pi"}).get("pi") == pytest.approx(3.14159265)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("frozen_prob", "Unknown detector 'frozen_prob': did you mean 'frozen_probe'? Known: frozen_probe, univfd."),
        ("zzz", "Unknown detector 'zzz': Known: frozen_probe, univfd."),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(asked: str, text: str) -> None:
    registry = Registry("detector", {"frozen_probe": "a:b", "univfd": "a:b"})
    with pytest.raises(UnknownNameError) as caught:
        registry.get(asked)
    assert str(caught.value) == text
