"""A trained detector as a bundle that runs without torch, written only when its numbers are the detector's own.

`export` turns a checkpoint into a folder (`docs/export.md`): the graph in one or several formats, `bundle.json`, the
proof in `parity.json`, golden images, a model card and checksums. Nothing heavy is imported before it is used.

`forgery_det.export` is this package, and the public name of its function too: `forgery_det.export(checkpoint, out,
dataset=...)`. Hence the module can be called (a module's class may be replaced, Python data model, section "Customizing
module attribute access").
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgery_det.export.run import ExportSummary, export

__all__ = ["ExportSummary", "export"]


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.export(*arguments, **keywords)


sys.modules[__name__].__class__ = _CallablePackage


def __getattr__(name: str) -> Any:
    """Import a name that needs torch on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'forgery_det.export' has no attribute {name!r}")
    return getattr(importlib.import_module("forgery_det.export.run"), name)
