"""The OUT folder while work goes on, so that a killed run resumes and processes share the cases.

settings.json says what is evaluated, parts/ holds one finished case per file. A part is written
when its case is finished: first the picture's arrays (.npz), then the rows (.json), which makes it
count, each atomically. Both carry the hash of all settings; claims.py says who works.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from evaluation.case_result import CaseResult, arrays_of, split_pictures
from evaluation.claims import MUTEX, Claim, Claims
from evaluation.differences import differences
from evaluation.file_hashes import FileHashes
from evaluation.inputs import CaseSource, Source
from evaluation.options import OLD_NAMES
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, remove_leftovers, write_file
from nnunetv2_lngswr.utils.output_folder import output_folder

_SETTINGS = "settings_sha256"
_BEST_ITERATE = "best_iterate"
OUTPUTS = (
    *("cases.csv", "summary.json", "report.md", "report.html"),
    *("curves.png", "examples.png", "corruptions.png"),
)
CARD_JSON, CARD_MD = "robustness_card.json", "robustness_card.md"
"""What `lngswr card` makes of OUT; gone once OUT holds something else."""


class ResultsFolder:
    """The output folder of an evaluation, OUT, with its settings and its finished cases.

    Parameters
    ----------
    path
        The folder, which need not exist; nothing is written before `open`.
    settings_sha256
        Of all settings, model and inputs: what parts made now carry, and parts that carry another
        do not count. None: not asked.
    call
        Of whom this is a worker; None for a call of its own.
    """

    def __init__(
        self, path: str | Path, settings_sha256: str | None = None, *, call: str | None = None
    ) -> None:
        self.path = Path(path)
        self.settings_sha256 = settings_sha256
        self.call, self._worker = call or uuid.uuid4().hex, call is not None
        self._hashes = FileHashes()
        self._claims = Claims(self.path)
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
            OUT holds results of other settings, which are named, or something else; is no folder.
        """
        if (self.path.exists() or self.path.is_symlink()) and not self.path.is_dir():
            kind = "a file" if self.path.exists() else "a link to nothing"
            raise UserError(f"{self.path} is {kind}; -o needs a folder")
        output_folder(self.path)
        there = [n for n in (*OUTPUTS, "parts", "adversarial") if (self.path / n).exists()]
        if overwrite or not there or self.holds(settings):
            return
        if not self.settings_file.is_file():
            raise UserError(
                f"{self.path} holds {', '.join(there)} without settings.json; "
                "choose another folder, or --overwrite to replace them"
            )
        try:
            before = read_json(self.settings_file, needs=("options",))
        except UserError as error:
            raise UserError(f"{error}; choose another folder, or --overwrite") from None
        different = differences(before, _as_json(settings))
        for old, new in OLD_NAMES.items():  # as the flags are called
            different = [d.replace(f"options.{old}:", f"options.{new}:") for d in different]
        raise UserError(
            f"{self.path} holds results of other settings ({'; '.join(different)}); "
            "choose another folder, or --overwrite to replace them"
        )

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether what OUT holds was made with these settings."""
        if not self.settings_file.is_file():
            return False
        try:
            before = read_json(self.settings_file)
        except UserError:  # damaged
            return False
        now = _as_json(settings)
        if _BEST_ITERATE not in before and (self.path / "summary.json").is_file():
            now.pop(_BEST_ITERATE, None)  # `unfinished` refuses to go on with it
        return before == now

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make OUT hold these settings; results of other settings are removed.

        Only files that an evaluation writes are. Several processes may do it at once: the first one
        removes, the others find it done.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._claims.alone():
            if self.holds(settings):
                return
            for path in self._outputs():
                path.unlink(missing_ok=True)
            for folder in (self.parts, self.adversarial):
                if folder.is_dir():
                    shutil.rmtree(folder)
            write_file(self.settings_file, json.dumps(settings, indent=1) + "\n")

    def refuse_others(self, todo: Sequence[CaseSource]) -> None:
        """UserError where others are at work, with other settings or on these cases."""
        if self._claims.folder.is_dir():
            with self._claims.alone():
                self._claims.refuse(self._claim(todo))

    @contextmanager
    def claimed(
        self, settings: Mapping[str, Any], todo: Sequence[CaseSource], *, overwrite: bool = False
    ) -> Iterator[None]:
        """While this process works on `todo`: OUT holds these settings, and nobody replaces them.

        Where it ends in an exception before a case is finished, nothing is left in OUT.

        Raises
        ------
        UserError
            As `check`, and where others are at work with other settings or on the same cases.
        """
        places = (self.path.absolute(), *self.path.absolute().parents)
        made = [p for p in places if not p.exists()]
        claim, lock = self._claim(todo), None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._claims.alone():
                self._claims.refuse(claim)
                self.check(settings, overwrite=overwrite)
                lock = self._claims.make(claim)
                self.open(settings)
            yield
        except BaseException:
            with suppress(OSError, UserError):
                self._leave_nothing(lock, made)
            raise
        with self._claims.alone():
            self._claims.drop(lock)

    def finished(self, files: CaseSource) -> bool:
        """Whether the case has a part made with these settings, from the files as they are now."""
        return self._counting_part(files) is not None

    def finished_parts(self, cases: Sequence[CaseSource]) -> list[dict[str, Any]] | None:
        """The parts of all these cases, as `load` gives them; None where one is not finished."""
        found = []
        for files in cases:
            part = self._counting_part(files)
            if part is None:
                return None
            found.append(part)
        return found

    def unfinished(self, cases: Sequence[Source], settings: Mapping[str, Any]) -> list[Source]:
        """The cases that are left to do with these settings.

        Raises
        ------
        UserError
            Some are left of what an earlier version finished, whose attacks took other iterates.
        """
        if not self.holds(settings):
            return list(cases)
        todo = [c for c in cases if not self.finished(c)]
        if todo and _BEST_ITERATE not in read_json(self.settings_file):
            raise UserError(
                f"{self.path} was finished by an earlier version, whose attacks returned other "
                f"iterates, and {todo[0].identifier} has changed or is missing since; "
                "choose another folder with -o"
            )
        return todo

    def inputs_of(self, files: CaseSource) -> dict[str, Any]:
        """What a part keeps of its case's files; ask before they are read, and give it to `save`.

        Who changes them in between has a part that does not count.
        """
        return self._hashes.of_case(files)

    def save(
        self,
        files: CaseSource,
        result: CaseResult,
        environment: Mapping[str, str],
        inputs: Mapping[str, Any],
    ) -> None:
        """Write a finished case's part.

        Parameters
        ----------
        files, result
            The case and what came of it.
        environment
            {package or 'python', 'platform', 'device': version or name} that it was made with.
        inputs
            Its files as they were before it was run, by `inputs_of`.
        """
        arrays, described = split_pictures(result)
        if arrays:
            arrays[_SETTINGS] = np.array(str(self.settings_sha256))
            write_file(
                self.parts / f"{files.key}.npz", lambda file: np.savez_compressed(file, **arrays)
            )
        part = {
            _SETTINGS: self.settings_sha256,
            **inputs,
            "rows": result.rows,
            "seconds": result.seconds,
            "evaluations": result.evaluations,
            "notes": result.notes,
            "roundtrip": result.roundtrip,
            **described,
            "environment": dict(environment),
        }
        write_file(self._part(files), json.dumps(part))

    def has_part(self, files: CaseSource) -> bool:
        """Whether there is a part, be it from files that have changed since."""
        return self._part(files).is_file()

    def discard(self, cases: Sequence[CaseSource]) -> None:
        """Remove parts that do not count."""
        for files in cases:
            self._part(files).unlink(missing_ok=True)

    def load(self, files: CaseSource) -> dict[str, Any]:
        """The part of a case, as `save` wrote it, without the picture's arrays."""
        return read_json(self._part(files))

    def load_picture(self, files: CaseSource, part: Mapping[str, Any], name: str) -> dict[str, Any]:
        """What a part has of this name in case_result.PICTURES, with its arrays."""
        path = self.parts / f"{files.key}.npz"
        with np.load(path) as arrays:
            if _SETTINGS in arrays and str(arrays[_SETTINGS]) != str(self.settings_sha256):
                raise UserError(
                    f"{path} was made with other settings, by a call that went on beside this one; "
                    "remove it and run the same command again"
                )
            return {**part[name], **arrays_of(arrays, name)}

    def begin_report(self, summary: str) -> None:
        """Before another report is written: without summary.json, which is written last, OUT is
        unfinished, and a card is of the report that it was made of."""
        there = self.path / "summary.json"
        if not there.is_file() or there.read_bytes() != summary.encode():
            for name in ("summary.json", CARD_JSON, CARD_MD):
                (self.path / name).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what killed runs left half-written in parts/, once all cases are finished."""
        for leftover in self.parts.glob(".*.tmp"):  # of an earlier version
            leftover.unlink(missing_ok=True)
        remove_leftovers(self.parts)

    def _claim(self, todo: Sequence[CaseSource]) -> Claim:
        return Claim(
            call=self.call,
            worker=self._worker,
            settings=str(self.settings_sha256),
            cases=[c.key for c in todo],
        )

    def _counting_part(self, files: CaseSource) -> dict[str, Any] | None:
        path = self._part(files)
        if not path.is_file():
            return None
        part = read_json(path)
        # parts of earlier versions carry no hash
        if part.get(_SETTINGS, self.settings_sha256) != self.settings_sha256:
            return None
        return part if self._hashes.are_of(files, part) else None

    def _leave_nothing(self, lock: FileLock | None, made: Sequence[Path]) -> None:
        """Of a call that came to nothing, where nobody else is at work.

        Parameters
        ----------
        lock
            The claim; None where it was not made, and OUT is as it was.
        made
            Folders that were not there before.
        """
        if self.path.is_dir():
            with self._claims.alone():
                self._drop(lock)
        with suppress(OSError):  # there is something in it
            for folder in made:
                folder.rmdir()

    def _drop(self, lock: FileLock | None) -> None:
        results = [p for p in (*self._outputs(), *self.parts.glob("*.json")) if p.exists()]
        if lock is not None:
            self._claims.drop(lock)
            if not results and not self._claims.living():
                for folder in (self.parts, self.adversarial):
                    shutil.rmtree(folder, ignore_errors=True)
                self.settings_file.unlink(missing_ok=True)
        # who waits for this file finds, once it has it, that it is gone, and makes a new one
        if [p.name for p in self.path.iterdir()] == [MUTEX]:
            with suppress(PermissionError):  # Windows removes no file that is open
                (self.path / MUTEX).unlink()

    def _outputs(self) -> list[Path]:
        return [self.path / name for name in (*OUTPUTS, CARD_JSON, CARD_MD)]

    def _part(self, files: CaseSource) -> Path:
        return self.parts / f"{files.key}.json"


def _as_json(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings))
