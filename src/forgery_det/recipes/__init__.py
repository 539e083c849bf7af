"""Recipes: what a dataset is made of, declared in YAML, and the resumable build that makes it."""

from __future__ import annotations

from forgery_det.recipes.build import CollectSummary, collect

__all__ = ["CollectSummary", "collect"]
