"""The source kinds of recipes and the formats prompts are read from: a line each, imported when used."""

from __future__ import annotations

from forgery_det.core.registry import Registry

_HERE = "forgery_det.recipes.sources"

SOURCES = Registry(
    "source kind",
    {
        "debian_package": f"{_HERE}.debian_package:DebianPackageSource",
        "folder": f"{_HERE}.folder:FolderSource",
        "generate": "forgery_det.recipes.generate.source:GenerateSource",
        "huggingface": f"{_HERE}.huggingface:HuggingFaceSource",
        "manifest": f"{_HERE}.manifest:ManifestSource",
        "python_package": f"{_HERE}.python_package:PythonPackageSource",
    },
)

PROMPT_FORMATS = Registry(
    "prompt format",
    {"comfyui_workflow": "forgery_det.recipes.comfyui_prompt:read_prompt"},
)
"""Format -> `read(data: bytes, node_ref: str) -> str`."""
