"""What several commands share: common options, options to settings, printing as things come."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from nnunetv2_lngswr.utils.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")
# what ArgumentParser.add_subparsers returns
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

say = functools.partial(print, flush=True)


def add_device(
    command: argparse.ArgumentParser,
    *,
    choices: Sequence[str] = ("cpu", "cuda", "mps"),
    default: str | None = None,
) -> None:
    """Add nnU-Net's option `-device`; without a default it is left to the machine."""
    shown = "cuda where there is one" if default is None else default
    command.add_argument(
        "-device", choices=choices, default=default, help=f"as for nnU-Net's commands ({shown})"
    )


def add_quiet(command: argparse.ArgumentParser) -> None:
    """Add nnU-Net's option `--disable_progress_bar`."""
    command.add_argument("--disable_progress_bar", action="store_true", help="no progress bar")


def take(settings: type[Settings], arguments: argparse.Namespace) -> Settings:
    """Make a dataclass of the arguments that bear its fields' names; other fields keep defaults."""
    names = [f.name for f in dataclasses.fields(settings)]
    return settings(**{n: getattr(arguments, n) for n in names if hasattr(arguments, n)})


def settings_of(text: str) -> Any:
    """Return what --settings says.

    Raises
    ------
    UserError
        It is no JSON.
    """
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"--settings must be JSON: {error}") from None


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all arguments of a command but what runs it."""
    return {name: value for name, value in vars(arguments).items() if name != "run"}
