"""Keep Lightning's start-up talk out of our output: only what a user can act on is worth a line."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")

_EXPECTED = (
    "LightningCLI's args parameter is intended",  # we hand over the words after `fit` on purpose
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning calls a torch function that torch renamed
    ".*The number of training batches .* is smaller than the logging interval",  # losses are logged once an epoch
    ".*module\\(s\\) in eval mode at the start of training",  # a frozen backbone is in evaluation mode on purpose
    ".*does not have many workers",  # the number of workers is the user's setting
    ".*exists and is not empty",  # a resumed run writes into its own folder
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Raise Lightning's loggers to warnings and drop the warnings that describe what we chose."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _EXPECTED:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
