"""Images of a dataset on the Hugging Face hub, streamed; their bytes are kept as they were uploaded."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import REAL
from forgery_det.recipes.annotations import ITEM_FIELDS, TEXT_FIELDS, item_field
from forgery_det.recipes.sources.base import Skip, Source, SourceContext, SourceItem
from forgery_det.recipes.sources.outlook import Download, Outlook

_OF_GENERATORS = ("generator", "paradigm", "decoder", "release_date")

_POSITION_EVERY = 50
"""Items between two notes of the stream's position: at most so many are read again after an interruption."""


@dataclass(frozen=True, slots=True)
class HuggingFaceParameters:
    """Keys of a `huggingface` source.

    Args:
        dataset: Name on the hub, or a builder such as `parquet` or `imagefolder` together with `data_files`.
        columns: `image` and item fields -> column of the dataset. Everything else is left behind.
        split: Split of the dataset that is read; it says nothing about our `split`.
        revision: Commit on the hub, 40 hexadecimal digits: a branch would move under the recipe. Required on the hub.
        name: Configuration of the dataset.
        labels: Value of the label column -> `real` or `generated`, where the column holds other values.
        data_files: Local files, relative to the recipe's folder or absolute, `*` allowed.
        max_items: Stop after so many items.
        first_item: Number of the first item that is read, for sources that must not overlap.
        data_dir: Folder of the repository that is read, for repositories without configurations.
        values: Field -> value of its column -> our value; `"*"` stands for the values that are not listed, which
            otherwise stay as they are; null leaves the field out.
    """

    dataset: str
    columns: Mapping[str, str]
    split: str = "train"
    revision: str | None = None
    name: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    data_files: tuple[str, ...] = ()
    max_items: int | None = None
    first_item: int = 0
    data_dir: str | None = None
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "image" not in self.columns:
            raise ConfigError(f"Expected `columns` to name the column of the image, got {dict(self.columns)}")
        for name in self.columns:
            if name != "image" and name not in ITEM_FIELDS:
                raise ConfigError(f"Unknown field {name!r} in `columns`: {did_you_mean(name, ('image', *ITEM_FIELDS))}")
        for name in self.values:
            if name not in self.columns:
                raise ConfigError(f"Unknown field {name!r} in `values`: {did_you_mean(name, self.columns)}")
        if not self.data_files and not _is_commit(self.revision):
            raise ConfigError(f"Expected `revision` as a commit of 40 hexadecimal digits, got {self.revision!r}")


class HuggingFaceSource(Source):
    """Every row of one split, in the dataset's order; the key is the row's number."""

    Parameters = HuggingFaceParameters
    gives_fields = True

    def __init__(self, parameters: HuggingFaceParameters, context: SourceContext) -> None:
        self._parameters = parameters
        self._source_id = context.source_id
        self._files = [str(context.resolve(name)) for name in parameters.data_files]
        self.pinned = not self._files  # a commit pins what is on the hub, nothing pins local files

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the rows, with size and time of local files."""
        given = self._parameters
        found = [path for name in self._files for path in sorted(Path(name).parent.glob(Path(name).name))]
        return {
            "dataset": [given.dataset, given.name, given.split, given.revision, given.max_items],
            "columns": dict(given.columns),
            "labels": dict(given.labels),
            **({"first_item": given.first_item} if given.first_item else {}),
            **({"data_dir": given.data_dir} if given.data_dir is not None else {}),
            **({"values": {name: dict(table) for name, table in given.values.items()}} if given.values else {}),
            "files": [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in found],
        }

    def items(self, skip: Skip, position: Any = None) -> Iterator[SourceItem]:
        """Yield the rows.

        Raises:
            SourceError: The package `datasets` is missing, the dataset cannot be read, or a column is missing.
        """
        stream = self._stream()
        index = first = self._parameters.first_item
        last = None if self._parameters.max_items is None else first + self._parameters.max_items
        if position is None and first:
            stream = stream.skip(first)
        if position is not None:
            index = position["index"]
            stream.load_state_dict(position["state"])
        try:
            for row in stream:
                if index == last:
                    return
                index += 1
                noted = {"index": index, "state": stream.state_dict()} if index % _POSITION_EVERY == 0 else None
                yield self._item(f"{self._parameters.split}/{index - 1:08d}", row, skip, noted)
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def outlook(self) -> Outlook:
        """Return the most rows that are read, and what is streamed."""
        given = self._parameters
        name = given.dataset if not self._files else ", ".join(self._files)
        return Outlook(more=given.max_items, downloads=(Download(f"{name} (streamed)", None, None),))

    def _stream(self) -> Any:
        if importlib.util.find_spec("datasets") is None:
            raise SourceError(
                f"Expected the package `datasets` for source {self._source_id!r}, got none: install `forgery-det[hub]`."
            )
        # Only here: importing datasets takes seconds.
        import datasets

        given = self._parameters
        try:
            stream = datasets.load_dataset(
                given.dataset, name=given.name, split=given.split, revision=given.revision,
                data_files=self._files or None, data_dir=given.data_dir, streaming=True,
            )  # fmt: skip
            columns = sorted(set(given.columns.values()))
            known = stream.column_names or list(next(iter(stream), {}))
            for column in columns:
                if column not in known:
                    hint = did_you_mean(column, known)
                    raise SourceError(f"Unknown column {column!r} (source {self._source_id!r}: columns): {hint}")
            # Undecoded: a recipe needs the bytes as they were uploaded, and our decoder's rules.
            return stream.select_columns(columns).cast_column(given.columns["image"], datasets.Image(decode=False))
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> SourceError:
        return SourceError(
            f"Expected to stream {self._parameters.dataset!r}, got: {error} (source {self._source_id!r}). What came so "
            "far is kept; run the same command again to go on."
        )

    def _item(self, key: str, row: Mapping[str, Any], skip: Skip, position: Any) -> SourceItem:
        if skip(key, ""):
            return SourceItem(key, position=position)
        columns = self._parameters.columns
        try:
            given = {
                name: self._translated(name, row[column])
                for name, column in columns.items()
                if name != "image" and row[column] not in (None, "")
            }
            fields = {name: self._value(name, value) for name, value in given.items() if value is not None}
            if fields.get("label") == REAL:
                # Whatever a dataset writes there for a photograph, a photograph has no generator.
                fields = {name: value for name, value in fields.items() if name not in _OF_GENERATORS}
            data = _bytes(row[columns["image"]])
        except (ConfigError, OSError) as error:
            return SourceItem(key, refusal=("unreadable", str(error)), position=position)
        return SourceItem(key, "", data, fields, position=position)

    def _translated(self, name: str, value: Any) -> Any:
        table = self._parameters.values.get(name, {})
        return table.get(str(value), table.get("*", value))

    def _value(self, name: str, value: Any) -> Any:
        where = f"source {self._source_id!r}, column {self._parameters.columns[name]!r}"
        if name == "label" and self._parameters.labels:
            if str(value) not in self._parameters.labels:
                raise ConfigError(f"Expected a value of `labels`, got {value!r} ({where}).")
            value = self._parameters.labels[str(value)]
        if name in TEXT_FIELDS and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # datasets number their images
        return item_field(name, value, where)


def _bytes(image: Mapping[str, Any] | None) -> bytes:
    if image is None:
        raise OSError("Expected an image, got null.")
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    # Image folders are streamed as paths; fsspec comes with datasets and opens what its paths name.
    with importlib.import_module("fsspec").open(image["path"], "rb") as file:
        return bytes(file.read())


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and set(revision) <= set("0123456789abcdef")
