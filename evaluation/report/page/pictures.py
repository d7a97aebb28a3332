"""The pictures of report.html: small stacks of planes (picture_stack.py), within a budget of bytes.

They are read from OUT/parts. A case whose part is not there, or was made by other settings, has
none; parts of earlier versions have one slice and one attack.
"""

from __future__ import annotations

import base64
import io
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.case_result import EXAMPLE_ARRAYS, STACK
from evaluation.picture_stack import FIXED, stack_of_example
from evaluation.report.examples import rank_of
from evaluation.rows import MEAN_LABEL, Row, part_key
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json

MOST_BYTES = 2_600_000
"""Of all cases' pictures in a page, base64."""
MOST_BYTES_BESIDE = 500_000
"""Of a picture beside them, likewise."""
MOST_BYTES_OF_PAGE = 4_900_000
"""What pictures fill up a page to at most: it shall be below 5 MB, and each has a few words."""

_USED = (*EXAMPLE_ARRAYS, STACK, "settings_sha256")

Picture = dict[str, Any]


def fill(make: Callable[[list[Picture]], str], read: Callable[[int], list[Picture]]) -> str:
    """Return a page with as many pictures as it has room for.

    Parameters
    ----------
    make
        Gives the page with these pictures.
    read
        Gives pictures of so many bytes at most.
    """
    room = MOST_BYTES_OF_PAGE - len(make([]).encode())
    return make(read(max(0, min(MOST_BYTES, room))))


def read_pictures(
    folders: Sequence[Path], rows: Iterable[Row], *, most: int = MOST_BYTES
) -> list[Picture]:
    """Pictures of as many cases as fit, evenly from the one hit hardest to the one hit least.

    Parameters
    ----------
    folders
        OUT folders of one model.
    rows
        Of cases.csv: which cases there are.
    most
        Bytes at most.
    """
    return read_side_by_side([(folders, rows)], most=most)


def read_side_by_side(
    models: Iterable[tuple[Sequence[Path], Iterable[Row]]], *, most: int = MOST_BYTES
) -> list[Picture]:
    """`read_pictures` of several models: the same cases of each.

    Cases are ranked by the first model that has pictures, and go by what all models' pictures of
    them take. One that a model has no picture of comes after those that all have.

    Parameters
    ----------
    models
        (OUT folders, rows of cases.csv) of each.
    most
        Bytes at most, of all models together.
    """
    found = [_of_model(i, *model) for i, model in enumerate(models)]
    ranks: dict[str, tuple[Any, ...]] = {}
    for place, pictures in enumerate(found):
        for case, picture in pictures.items():
            ranks.setdefault(case, (place, picture["rank"], case))
    ranked = sorted(ranks, key=ranks.__getitem__)
    # a folder that was copied without its parts has none, and is no reason to show fewer
    of_all = [c for c in ranked if all(c in pictures for pictures in found if pictures)]
    others = [c for c in ranked if c not in of_all]
    chosen: set[str] = set()
    size = 0
    for case in (cases[i] for cases in (of_all, others) for i in _evenly(len(cases))):
        size += sum(len(pictures[case]["data"]) for pictures in found if case in pictures)
        if (chosen or most == 0) and size > most:
            break
        chosen.add(case)
    return [
        {k: v for k, v in pictures[case].items() if k != "rank"}
        for pictures in found
        for case in ranked
        if case in chosen and case in pictures
    ]


def _of_model(model: int, folders: Sequence[Path], rows: Iterable[Row]) -> dict[str, Picture]:
    """{case: its pictures}, those of the first folder that has any."""
    rows = list(rows)
    # a comparison leaves out what not every model has
    runs = {_run(r) for r in rows}
    pictures: dict[str, Picture] = {}
    for case, key in dict.fromkeys((r["case"], part_key(r)) for r in rows):
        for folder in folders:
            found = _read(folder / "parts", key, runs)
            if found is not None and case not in pictures:
                pictures[case] = {"case": case, "model": model, **found}
    return pictures


def read_as_jpeg(path: Path, *, most: int = MOST_BYTES_BESIDE) -> str:
    """A picture file as JPEG in base64, as good as `most` bytes allow; empty where none is."""
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    for quality in (80, 65, 50, 35):
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=quality)
        text = base64.b64encode(content.getvalue()).decode()
        if len(text) <= most:
            return text
    return ""


def _run(row: Row) -> tuple[str, ...]:
    """What names an attack, in rows and beside pictures."""
    return tuple(row[k] or "" for k in ("attack", "norm", "epsilon_text"))


def _read(parts: Path, key: str, runs: Collection[tuple[str, ...]]) -> Picture | None:
    """The pictures of a case under those of `runs` that are shown; None where there are none."""
    try:
        part = read_json(parts / f"{key}.json")
        with np.load(parts / f"{key}.npz") as file:
            arrays = {k: file[k] for k in file.files if k in _USED}
    except (OSError, UserError, ValueError, zipfile.BadZipFile):
        return None
    example, settings = part.get("example"), part.get("settings_sha256")
    if not example or str(arrays.get("settings_sha256", settings)) != str(settings):
        return None
    if STACK in arrays and "shown" in example:
        stack, shown = arrays[STACK], example["shown"]
    elif all(k in arrays for k in EXAMPLE_ARRAYS):
        stack, shown = stack_of_example(example | arrays)
    else:
        return None
    stack, attacks = _of_runs(stack, shown["attacks"], runs)
    # of this very training, where a model has several
    means = [r for r in part.get("rows") or () if r["label"] == MEAN_LABEL]
    dice = {_run(r): r["dice"] for r in means if r["kind"] == "attack"}
    shown = {
        **shown,
        "dice": next((r["dice"] for r in means if r["kind"] == "clean"), None),
        "attacks": [{**a, "dice": dice.get(_run(a))} for a in attacks],
    }
    return encoded(stack, shown, example)


def _of_runs(
    stack: np.ndarray, attacks: Sequence[Mapping[str, Any]], runs: Collection[tuple[str, ...]]
) -> tuple[np.ndarray, list[Mapping[str, Any]]]:
    """The planes and attacks that are of `runs`."""
    kept = [i for i, attack in enumerate(attacks) if _run(attack) in runs]
    planes = [len(FIXED) + 2 * i + of for i in kept for of in (0, 1)]
    return stack[[*range(len(FIXED)), *planes]], [attacks[i] for i in kept]


def encoded(stack: np.ndarray, shown: Mapping[str, Any], example: Mapping[str, Any]) -> Picture:
    """One case as JSON: its planes compressed, in base64.

    Parameters
    ----------
    stack, shown
        As `PictureStack.arrays` and `PictureStack.describe` give them.
    example
        Names of labels, and the Dice that cases are ranked by.
    """
    planes = np.ascontiguousarray(stack, np.uint8)
    return {
        **shown,
        "shape": list(planes.shape[1:]),
        "names": [example["names"].get(str(v), f"label {v}") for v in shown["values"]],
        "data": base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode(),
        "rank": rank_of(example),
    }


def _evenly(count: int) -> list[int]:
    """0 .. count - 1, so that every beginning of it is spread: both ends, the middle, quarters."""
    order: dict[int, None] = {}
    pieces = 1
    while len(order) < count:
        for i in range(pieces + 1):
            order[round(i * (count - 1) / pieces)] = None
        pieces *= 2
    return list(order)
