"""Push: a finished dataset as Parquet with a card and Croissant metadata, on the Hugging Face hub or in a folder."""

from __future__ import annotations

from forgery_det.recipes.push.folder import PushFolder, prepare
from forgery_det.recipes.push.upload import upload

__all__ = ["PushFolder", "prepare", "upload"]
