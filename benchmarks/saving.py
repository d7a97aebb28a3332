"""How scripts say what they are and what they were called with, and write JSON and pictures."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nnunetv2_lngswr.utils.files import write_file


def command_line(script: str, argv: Sequence[str] | None) -> str:
    """What takes the same figures again; `argv` None: the process's arguments."""
    arguments = sys.argv[1:] if argv is None else argv
    return " ".join(["python", "-m", f"benchmarks.{script}", *arguments])


def first_paragraph(text: str | None) -> str:
    """Of a script's docstring, on one line: what it says of itself in --help."""
    return " ".join((text or "").split("\n\n")[0].split())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Numbers to seven digits, what float32 holds; nan as null."""
    write_file(path, json.dumps(rounded(content), indent=1, allow_nan=False) + "\n")


def write_picture(path: Path, figure: Figure) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, facecolor="white")
    write_file(path, picture.getvalue())


def rounded(value: Any) -> Any:
    """As `write_json` writes it."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
