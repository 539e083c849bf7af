"""Prompts of a dataset on the Hugging Face hub, streamed: captions of photographs, prompts that people wrote.

Only the named columns are read, so the images of a dataset stay where they are. Worth knowing: the captions of COCO and
Flickr30k, `UCSC-VLAA/Recap-COCO-30K` (a short and a long caption of each photograph: two levels of one prompt),
DiffusionDB and OpenFake (what people and papers asked generators for). Read their licences first.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forgery_det.core.artefacts import canonical_json, sha256_bytes, write_text
from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.recipes.prompt_sets import PromptContext
from forgery_det.recipes.prompting.base import PromptKind, PromptRow
from forgery_det.recipes.prompting.rows_table import check_columns, check_known, rows_of
from forgery_det.recipes.work import WORK_NAME


@dataclass(frozen=True, slots=True)
class PromptDatasetParameters:
    """Keys of `from` with the kind `prompt_dataset`.

    Args:
        dataset: Name on the hub, or a builder such as `parquet` or `json` together with `data_files`.
        columns: `prompt`, and optionally `v1`, `v2`, `content_id`, `source_id` -> column.
        split: Split of the dataset that is read; it says nothing about our `split`.
        revision: Commit on the hub, 40 hexadecimal digits: a branch would move under the recipe. Required on the hub.
        name: Configuration of the dataset.
        data_files: Local files, relative to the recipe's folder or absolute, `*` allowed.
        per_row: Most prompts of a row whose column holds a list of captions.
        max_rows: Stop after so many rows.
        first_row: Number of the first row that is read, for sets that must not overlap.
    """

    dataset: str
    columns: Mapping[str, str]
    split: str = "train"
    revision: str | None = None
    name: str | None = None
    data_files: tuple[str, ...] = ()
    per_row: int = 1
    max_rows: int | None = None
    first_row: int = 0

    def __post_init__(self) -> None:
        check_columns(self.columns)
        digits = self.revision or ""
        if not self.data_files and not (len(digits) == 40 and set(digits) <= set("0123456789abcdef")):
            raise ConfigError(f"Expected `revision` as a commit of 40 hexadecimal digits, got {self.revision!r}")
        for name, least in (("per_row", 1), ("first_row", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"Expected `{name}` of at least {least}, got {getattr(self, name)}")


class PromptDataset(PromptKind):
    """Every row of one split, in the dataset's order. Rows of a pinned commit are kept beside the journals."""

    Parameters = PromptDatasetParameters

    def __init__(self, parameters: PromptDatasetParameters, folder: Path, context: PromptContext) -> None:
        self._parameters = parameters
        self._files = [str(folder / Path(name).expanduser()) for name in parameters.data_files]
        deciding = canonical_json(asdict(parameters) | {"data_files": self._files})
        self._kept = context.out / WORK_NAME / f"prompt-rows-{sha256_bytes(deciding.encode('utf-8'))[:32]}.json"

    def rows(self) -> Iterator[PromptRow]:
        """Yield the rows, one by one as they are asked for.

        Raises:
            SourceError: The package `datasets` is missing, the dataset cannot be read, or a column is missing.
        """
        given = self._parameters
        for index, row in enumerate(self._raw_rows(), given.first_row):
            yield from rows_of(row, given.columns, f"{given.dataset} {given.split}/{index:08d}", given.per_row)

    def _raw_rows(self) -> Iterator[Mapping[str, Any]]:
        kept: list[Mapping[str, Any]] = []
        whole = False
        if not self._files and self._kept.is_file():
            found = json.loads(self._kept.read_text(encoding="utf-8"))
            kept, whole = found["rows"], found["whole"]
        known = len(kept)
        try:
            yield from tuple(kept)
            if not whole:
                for row in self._streamed(known):
                    kept.append(row)
                    yield row
                whole = True
        finally:
            # A set with a limit stops asking before the dataset ends: what came is kept for the same set again.
            if not self._files and (len(kept) > known or not self._kept.is_file()):
                write_text(self._kept, json.dumps({"rows": kept, "whole": whole}, ensure_ascii=False, default=str))

    def _streamed(self, start: int) -> Iterator[Mapping[str, Any]]:
        if importlib.util.find_spec("datasets") is None:
            raise SourceError("Expected the package `datasets` for prompts, got none: install `forgery-det[hub]`.")
        # Only here: importing datasets takes seconds.
        import datasets

        given = self._parameters
        columns = sorted(set(given.columns.values()))
        try:
            stream = datasets.load_dataset(
                given.dataset, name=given.name, split=given.split, revision=given.revision,
                data_files=self._files or None, streaming=True,
            )  # fmt: skip
            check_known(given.columns, stream.column_names or list(next(iter(stream), {})), given.dataset)
            stream = stream.select_columns(columns)
            before = given.first_row + start
            for index, row in enumerate(stream.skip(before) if before else stream, start):
                if index == given.max_rows:
                    return
                yield {column: row[column] for column in columns}
        except (OSError, ValueError, RuntimeError) as error:
            raise SourceError(
                f"Expected to stream {given.dataset!r}, got: {error} (prompt_sets: from). Run the same command again "
                "to go on."
            ) from error
