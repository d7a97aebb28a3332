"""Ways to make a file bad. Each returns a function of the row's folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

Spoil = Callable[[Path], object]
DROP = type("Drop", (), {"__repr__": lambda self: "left out"})()


def both(*spoils: Spoil) -> Spoil:
    """One after the other."""
    return lambda root: [spoil(root) for spoil in spoils]


def write(path: str, content: str | bytes) -> Spoil:
    """A file of this content in place of whatever is there."""
    data = content.encode() if isinstance(content, str) else content

    def spoil(root: Path) -> None:
        _clear(root / path)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)

    return spoil


def remove(path: str) -> Spoil:
    """Without this file or folder."""
    return lambda root: _clear(root / path)


def cut(path: str, keep: float = 0.6) -> Spoil:
    """A file that ends early."""

    def spoil(root: Path) -> None:
        data = (root / path).read_bytes()
        (root / path).write_bytes(data[: int(len(data) * keep)])

    return spoil


def folder(path: str) -> Spoil:
    """A folder, where a file may have been."""

    def spoil(root: Path) -> None:
        _clear(root / path)
        (root / path).mkdir(parents=True)

    return spoil


def link(path: str, target: str) -> Spoil:
    """A link, where a file or folder may have been."""

    def spoil(root: Path) -> None:
        _clear(root / path)
        (root / path).symlink_to(target)

    return spoil


def circle(path: str) -> Spoil:
    """A link to itself."""
    return link(path, Path(path).name)


def copy(source: str, target: str) -> Spoil:
    """A file or folder once more, by another name."""

    def spoil(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (root / source).is_dir() else shutil.copy)(root / source, root / target)

    return spoil


def move(source: str, target: str) -> Spoil:
    """A file or folder by another name."""
    return lambda root: (root / source).rename(root / target)


def change_json(path: str, changes: Mapping[str, Any]) -> Spoil:
    """{"a.b.0": value or DROP} in a JSON file."""

    def spoil(root: Path) -> None:
        content = json.loads((root / path).read_text())
        for keys, value in changes.items():
            put(content, keys, value)
        (root / path).write_text(json.dumps(content))

    return spoil


def change_checkpoint(path: str, changes: Mapping[str, Any]) -> Spoil:
    """As `change_json`, of a torch checkpoint; a function gets the old value."""

    def spoil(root: Path) -> None:
        content = torch.load(root / path, weights_only=False)
        for keys, value in changes.items():
            put(content, keys, value)
        torch.save(content, root / path)

    return spoil


def save_torch(path: str, content: Any) -> Spoil:
    """Anything, as torch saves it."""
    return lambda root: torch.save(content, root / path)


def image(path: str, array: np.ndarray, *, vector: bool = False, **geometry) -> Spoil:
    """An image; `spacing`, `origin`, `direction` as ITK has them, x first."""

    def spoil(root: Path) -> None:
        _clear(root / path)
        made = sitk.GetImageFromArray(array, isVector=vector)
        for name, value in geometry.items():
            getattr(made, f"Set{name.capitalize()}")(value)
        sitk.WriteImage(made, str(root / path))

    return spoil


def put(content: Any, keys: str, value: Any) -> None:
    """Set or drop what lies at keys joined by dots."""
    *above, last = [int(k) if k.isdigit() and k != "0" else k for k in keys.split(".")]
    for key in above:
        content = content[_own(content, key)]
    last = _own(content, last)
    if value is DROP:
        del content[last]
    else:
        content[last] = value(content[last]) if callable(value) else value


def _own(content: Any, key: str | int) -> str | int:
    """Keys of objects are texts, those of lists numbers."""
    return int(key) if isinstance(content, list) else str(key)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
