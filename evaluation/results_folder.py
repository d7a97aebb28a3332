"""The OUT folder while work goes on: settings.json says what is evaluated, parts/ holds one finished case per file, so that a killed run
resumes, and several processes share the cases.

A part is written when its case is finished: first the picture's arrays (.npz), then the rows (.json), each atomically; the .json makes it count.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from evaluation.inputs import CaseFiles
from evaluation.run_case import CaseResult
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file

OUTPUTS = ("cases.csv", "summary.json", "report.md", "curves.png", "examples.png")
EXAMPLE_ARRAYS = ("image", "perturbation", "reference", "before", "after")


class ResultsFolder:
    """`path`: OUT; nothing is written before `open`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.settings_file = self.path / "settings.json"
        self.parts = self.path / "parts"
        self.adversarial = self.path / "adversarial"

    def check(self, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """ValueError where OUT holds results of other settings (named) or of something else, unless they are to be overwritten."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; -o needs a folder")
        above = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not above.is_dir():
            raise UserError(f"{above} is a file, so {self.path} cannot be made (-o)")
        there = [n for n in (*OUTPUTS, "parts", "adversarial") if (self.path / n).exists()]
        if overwrite or not there or self.holds(settings):
            return
        if not self.settings_file.is_file():
            raise UserError(
                f"{self.path} holds {', '.join(there)} without settings.json; choose another folder, or --overwrite to replace them"
            )
        try:
            before = read_json(self.settings_file)
        except ValueError as error:
            raise UserError(f"{error}; choose another folder, or --overwrite") from None
        different = differences(before, _as_json(settings))
        raise UserError(
            f"{self.path} holds results of other settings ({'; '.join(different)}); choose another folder, or --overwrite to replace them"
        )

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether what OUT holds was made with these settings."""
        try:
            return self.settings_file.is_file() and read_json(self.settings_file) == _as_json(
                settings
            )
        except ValueError:
            return False

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make OUT hold these settings; results of other settings are removed (only files that an evaluation writes). Several processes may
        do it at once: the first one removes, the others find it done."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / ".lock"
        with FileLock(lock):
            if not self.holds(settings):
                for name in OUTPUTS:
                    (self.path / name).unlink(missing_ok=True)
                for folder in (self.parts, self.adversarial):
                    if folder.is_dir():
                        shutil.rmtree(folder)
                write_file(self.settings_file, json.dumps(settings, indent=1) + "\n")
            # who waits for the file that goes here finds the settings in place
            lock.unlink(missing_ok=True)

    def finished(self, files: CaseFiles) -> bool:
        """Whether the case has a part made from the files as they are now."""
        part = self._part(files)
        return part.is_file() and read_json(part)["inputs_sha256"] == files.sha256()

    def save(self, files: CaseFiles, result: CaseResult, environment: Mapping[str, str]) -> None:
        example = result.example
        if example is not None:
            arrays = {k: example[k] for k in EXAMPLE_ARRAYS}
            write_file(
                self.parts / f"{files.key}.npz", lambda file: np.savez_compressed(file, **arrays)
            )
            example = {k: v for k, v in example.items() if k not in EXAMPLE_ARRAYS}
        part = {
            "inputs_sha256": files.sha256(),
            "rows": result.rows,
            "seconds": result.seconds,
            "evaluations": result.evaluations,
            "notes": result.notes,
            "roundtrip": result.roundtrip,
            "example": example,
            "environment": dict(environment),
        }
        write_file(self._part(files), json.dumps(part))

    def has_part(self, files: CaseFiles) -> bool:
        """Whether there is a part, be it from files that have changed since."""
        return self._part(files).is_file()

    def discard(self, cases: Sequence[CaseFiles]) -> None:
        """Remove parts that do not count."""
        for files in cases:
            self._part(files).unlink(missing_ok=True)

    def load(self, files: CaseFiles) -> dict[str, Any]:
        return read_json(self._part(files))

    def tidy(self) -> None:
        """Remove what killed runs left half-written in parts/; to be called when all cases are finished."""
        for leftover in self.parts.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def load_example(self, files: CaseFiles, part: Mapping[str, Any]) -> dict[str, Any]:
        with np.load(self.parts / f"{files.key}.npz") as arrays:
            return {**part["example"], **{k: arrays[k] for k in EXAMPLE_ARRAYS}}

    def _part(self, files: CaseFiles) -> Path:
        return self.parts / f"{files.key}.json"


def _as_json(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings))


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """'key: was A, is B' for every leaf that differs; long lists by what is only on one side."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        a, b = before.get(key), now.get(key)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif isinstance(a, list) and isinstance(b, list) and len(a) + len(b) > 12:
            gone, new = [v for v in a if v not in b], [v for v in b if v not in a]
            shown = [
                f"{word} {', '.join(map(str, v[:3]))}{' ...' if len(v) > 3 else ''}"
                for word, v in (("without", gone), ("with new", new))
                if v
            ]
            found.append(
                f"{prefix}{key}: {len(a)} before, {len(b)} now, {' and '.join(shown) or 'in another order'}"
            )
        else:
            found.append(f"{prefix}{key}: was {_short(a)}, is {_short(b)}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."
