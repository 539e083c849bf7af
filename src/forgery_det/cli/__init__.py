"""The command line: parse, build, call one function.

`main` finds the subcommand in `COMMANDS` without importing it, so `forgery-det --help` answers at once. The signature
of the function a command calls is its interface: jsonargparse turns parameters into options, reads `--config
FILE.yaml`, and refuses unknown keys. Exit codes: 0 done, 1 a check failed, 2 bad usage or input, 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from forgery_det._version import __version__
from forgery_det.core.errors import ForgeryDetError
from forgery_det.core.registry import did_you_mean

DONE, CHECK_FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand.

    Args:
        target: `module:function`; the function returns an exit code.
        summary: One line for `--help`.
        positional: Parameters given by place; every other parameter is an option.
        raw: The function parses its own arguments (`fit` hands them to LightningCLI).
    """

    target: str
    summary: str
    positional: tuple[str, ...] = ()
    raw: bool = False

    def load(self) -> Callable[..., int]:
        """Import the function."""
        module, name = self.target.split(":")
        function: Callable[..., int] = getattr(importlib.import_module(f"forgery_det.cli.{module}"), name)
        return function


COMMANDS: dict[str, Command] = {
    "quickstart": Command(
        "quickstart:quickstart", "collect samples, audit, train, evaluate; ends with the report's path"
    ),
    "collect": Command("datasets:collect", "build or resume a dataset from a recipe", ("recipe",)),
    "push": Command("push:push", "push a dataset to the Hugging Face hub, or write what would be pushed", ("dataset",)),
    "audit": Command(
        "datasets:audit", "look for shortcuts, leaks and duplicates; exit 1 on a failed audit", ("dataset",)
    ),
    "fit": Command("fit:fit", "train a detector (LightningCLI: --config, --model.*, --data.*, --trainer.*)", raw=True),
    "ensemble": Command(
        "ensemble:ensemble", "weigh trained checkpoints on val; shows the best of them beside the sum", ("checkpoints",)
    ),
    "evaluate": Command("evaluate:evaluate", "score a dataset and write the run folder", ("checkpoint", "dataset")),
    "compare": Command(
        "compare:compare", "set runs side by side: paired tests, significance groups, leaderboard", ("runs",)
    ),
    "matrix": Command(
        "matrix:matrix", "leave one generator, paradigm or decoder out; train on X, test on Y", ("dataset",)
    ),
    "predict": Command("predict:predict", "score files, folders, globs or stdin", ("model", "paths")),
    "export": Command("export:export", "write a bundle that runs without torch, with proof of parity", ("checkpoint",)),
    "self-test": Command("self_test:self_test", "score a bundle's golden images on this machine", ("bundle",)),
    "serve": Command("serve:serve", "answer over HTTP from a bundle, with a page at /", ("bundle",)),
    "safety": Command(
        "safety:safety", "measure unsafe, corrupted and refused answers of generators and unified models", ("plan",)
    ),
    "list": Command("listing:list_names", "list detectors, recipes, metrics, audits, protocols and more", ("kind",)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows the program's name; None reads `sys.argv`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return DONE
    if words[0] == "--version":
        print(f"forgery-det {__version__}")
        return DONE
    command = COMMANDS.get(words[0])
    if command is None:
        print(f"error: Unknown command {words[0]!r}: {did_you_mean(words[0], COMMANDS)}", file=sys.stderr)
        return BAD_USAGE
    try:
        return _run(words[0], command, words[1:])
    except ForgeryDetError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:
        print("Interrupted. What was finished is kept; the same command resumes.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (for instance `| head`): not an error, and nothing more can be said.
        sys.stderr.close()
        return DONE


def _run(name: str, command: Command, words: list[str]) -> int:
    function = command.load()
    if command.raw:
        return function(words)
    try:
        values = parse_options(name, words)
    except SystemExit as stop:
        return DONE if stop.code in (0, None) else BAD_USAGE
    return function(**values)


def parse_options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments that a command line gives to the function of a command.

    Args:
        name: One of `COMMANDS` that is not raw.
        words: What follows the command's name.

    Raises:
        SystemExit: `--help` was asked for (code 0), or the words do not fit the signature.
    """
    from jsonargparse import ArgumentParser

    from forgery_det.cli.words import completed

    command = COMMANDS[name]
    function = command.load()
    parser = ArgumentParser(prog=f"forgery-det {name}", description=command.summary)
    parser.add_argument("--config", action="config", help="YAML file with values for the options below")
    parser.add_function_arguments(function, skip=set(command.positional))
    for parameter in command.positional:
        kind, several = _positional(function, parameter)
        parser.add_argument(
            parameter, type=kind, nargs="*" if several else None, help=_positional_help(function, parameter)
        )
    namespace = parser.parse_args(completed(function, words))
    return {key: value for key, value in vars(namespace).items() if key != "config"}


def _positional(function: Callable[..., int], parameter: str) -> tuple[Any, bool]:
    annotation = typing.get_type_hints(function)[parameter]
    if typing.get_origin(annotation) is list:
        return typing.get_args(annotation)[0], True
    return annotation, False


def _positional_help(function: Callable[..., int], parameter: str) -> str:
    for line in (function.__doc__ or "").splitlines():
        if line.strip().startswith(f"{parameter}: "):
            return line.split(": ", 1)[1]
    raise AssertionError(f"{function.__name__} does not document `{parameter}`")


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: forgery-det COMMAND [options]\n\n"
        "Train, compare and ship detectors of AI-generated images.\n\n"
        f"commands:\n{rows}\n\n"
        "forgery-det COMMAND --help tells the options. `label` and `decision`: 1 = generated, 0 = real."
    )
