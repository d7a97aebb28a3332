"""The OUT folder while work goes on, so that a killed run resumes and processes share the cases.

settings.json says what is evaluated, parts/ holds one finished case per file. A part is written
when its case is finished: first the picture's arrays (.npz), then the rows (.json), each
atomically; the .json makes it count. Nothing here imports torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from evaluation.case_result import EXAMPLE_ARRAYS, CaseResult
from evaluation.inputs import CaseFiles
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file

OUTPUTS = ("cases.csv", "summary.json", "report.md", "curves.png", "examples.png")


class ResultsFolder:
    """The output folder of an evaluation, OUT, with its settings and its finished cases.

    Parameters
    ----------
    path
        The folder, which need not exist; nothing is written before `open`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.settings_file = self.path / "settings.json"
        self.parts = self.path / "parts"
        self.adversarial = self.path / "adversarial"

    def check(self, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """Refuse a folder that holds something else.

        Parameters
        ----------
        settings
            What is to be evaluated, as `session.Session.settings`.
        overwrite
            Whether results of other settings may be replaced.

        Raises
        ------
        UserError
            OUT holds results of other settings, which are named, or something else.
        """
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
                f"{self.path} holds {', '.join(there)} without settings.json; "
                "choose another folder, or --overwrite to replace them"
            )
        try:
            before = read_json(self.settings_file)
        except UserError as error:
            raise UserError(f"{error}; choose another folder, or --overwrite") from None
        different = differences(before, _as_json(settings))
        raise UserError(
            f"{self.path} holds results of other settings ({'; '.join(different)}); "
            "choose another folder, or --overwrite to replace them"
        )

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether what OUT holds was made with these settings."""
        if not self.settings_file.is_file():
            return False
        try:
            return read_json(self.settings_file) == _as_json(settings)
        except UserError:  # damaged
            return False

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make OUT hold these settings; results of other settings are removed.

        Only files that an evaluation writes are. Several processes may do it at once: the first one
        removes, the others find it done.
        """
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

    def unfinished(
        self, cases: Sequence[CaseFiles], settings: Mapping[str, Any]
    ) -> list[CaseFiles]:
        """The cases that are left to do with these settings."""
        return [c for c in cases if not self.finished(c)] if self.holds(settings) else list(cases)

    def save(self, files: CaseFiles, result: CaseResult, environment: Mapping[str, str]) -> None:
        """Write a finished case's part.

        Parameters
        ----------
        files, result
            The case and what came of it.
        environment
            {package or 'python', 'platform', 'device': version or name} that it was made with.
        """
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
        """The part of a case, as `save` wrote it, without the picture's arrays."""
        return read_json(self._part(files))

    def load_example(self, files: CaseFiles, part: Mapping[str, Any]) -> dict[str, Any]:
        """The example of a part that has one, with its arrays."""
        with np.load(self.parts / f"{files.key}.npz") as arrays:
            return {**part["example"], **{k: arrays[k] for k in EXAMPLE_ARRAYS}}

    def tidy(self) -> None:
        """Remove what killed runs left half-written in parts/, once all cases are finished."""
        for leftover in self.parts.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def _part(self, files: CaseFiles) -> Path:
        return self.parts / f"{files.key}.json"


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
            found.append(f"{prefix}{key}: {_difference_of_lists(a, b)}")
        else:
            found.append(f"{prefix}{key}: was {_short(a)}, is {_short(b)}")
    return found


def _difference_of_lists(before: list, now: list) -> str:
    gone, new = [v for v in before if v not in now], [v for v in now if v not in before]
    sides = [f"{word} {_first(v)}" for word, v in (("without", gone), ("with new", new)) if v]
    what = " and ".join(sides) or "in another order"
    return f"{len(before)} before, {len(now)} now, {what}"


def _first(values: list, count: int = 3) -> str:
    return ", ".join(map(str, values[:count])) + (" ..." if len(values) > count else "")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _as_json(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings))
