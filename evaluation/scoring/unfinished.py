"""What a call that has not ended has scored, OUT/unfinished, so that the same call goes on.

settings.json says what the scores depend on, cases/ holds one scored case per file, with the state
of the files that it was scored from. Both go when the report is written: OUT then is what a call
without an interruption leaves.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.differences import differences
from evaluation.file_hashes import FileHashes, file_state
from evaluation.scoring.label_set import LabelSet
from evaluation.scoring.measures import Units
from evaluation.scoring.options import ScoreOptions
from evaluation.scoring.predictions import Inputs
from evaluation.scoring.score_case import CaseFiles, CaseScorer, CaseScores
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import LOCK_NAME, read_json, write_file
from nnunetv2_lngswr.utils.locks import hold

FOLDER = "unfinished"
SCHEMA_VERSION = 1
_OF_THE_REPORT = ("chill", "processes", "seed")
"""Options that no case's scores depend on, as names and groups."""


@dataclass(frozen=True)
class Unfinished:
    """The scored cases in OUT; goes to other processes.

    Parameters
    ----------
    out
        OUT, which need not exist.
    """

    out: Path

    @property
    def folder(self) -> Path:
        return self.out / FOLDER

    @contextmanager
    def held(self, settings: Mapping[str, Any], *, overwrite: bool) -> Iterator[None]:
        """While this call scores: nobody else does so into OUT, and what OUT keeps is of these
        settings.

        However it ends, the cases that are scored stay; where none is, nothing new is in OUT.

        Parameters
        ----------
        settings
            Of `settings_of`.
        overwrite
            Whether what another call has left may go.

        Raises
        ------
        UserError
            Another call is at work in OUT, or has left cases there that were scored with other
            settings, which are named; or what ended this one, with what it has kept.
        """
        made = [p for p in (self.out, *self.out.parents) if not p.exists()]
        with hold(self.out, "lngswr score"):
            try:
                self._open(settings, overwrite)
                with self._saying_what_is_kept(overwrite):
                    yield
            except BaseException:
                with suppress(OSError):
                    self._leave_nothing(made)
                raise

    def find(self, files: CaseFiles) -> CaseScores | None:
        """The scores of a case; None where it was not scored from the files as they are now.

        Raises
        ------
        UserError
            They are damaged.
        """
        path = self._file(files)
        if not path.is_file():
            return None
        part = read_json(path, needs=("files", "units", "measured", "calibration"))
        if part["files"] != _states(files):
            return None
        return CaseScores(
            identifier=files.identifier,
            units=Units(**part["units"]),
            measured=tuple(_by_label(of) for of in part["measured"]),
            calibration=tuple(
                {label: np.array(sums) for label, sums in _by_label(of).items()}
                for of in part["calibration"]
            ),
        )

    def score(self, scorer: CaseScorer, files: CaseFiles) -> CaseScores:
        """Score a case and keep it."""
        states = _states(files)  # whoever changes them meanwhile has it scored again
        scores = scorer(files)
        part = {
            "files": states,
            "units": asdict(scores.units),
            "measured": [[*of.items()] for of in scores.measured],
            "calibration": [
                [(label, sums.tolist()) for label, sums in of.items()] for of in scores.calibration
            ],
        }
        write_file(self._file(files), json.dumps(part))
        return scores

    def remove(self) -> None:
        """Once the report is written."""
        shutil.rmtree(self.folder)

    def _open(self, settings: Mapping[str, Any], overwrite: bool) -> None:
        kept, file = self._cases(), self.folder / "settings.json"
        now = json.loads(json.dumps(settings))
        before = read_json(file) if kept and not overwrite else now
        if before != now:
            raise UserError(
                f"{self.out} holds {len(kept)} scored cases of an unfinished call with other "
                f"arguments ({'; '.join(differences(before, now))}): repeat that call to go on "
                "with it, choose another folder (-o), or --overwrite to score all anew"
            )
        if overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
        write_file(file, json.dumps(settings, indent=1) + "\n")

    @contextmanager
    def _saying_what_is_kept(self, overwrite: bool) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            kept = len(self._cases())
            if not kept:
                raise
            raise UserError(
                f"{error}; {kept} scored {'case is' if kept == 1 else 'cases are'} kept in "
                f"{self.folder}: the same call{' without --overwrite' if overwrite else ''} goes "
                "on with them, other arguments or another dataset.json need --overwrite"
            ) from None

    def _leave_nothing(self, made: list[Path]) -> None:
        """Of a call that has come to nothing; `made`: folders that were not there before."""
        if self._cases():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.out in made and os.listdir(self.out) == [LOCK_NAME]:
            (self.out / LOCK_NAME).unlink()  # held: nobody else has it, and none is left to have
            for folder in made:
                folder.rmdir()

    def _cases(self) -> set[Path]:
        return set((self.folder / "cases").glob("*.json"))

    def _file(self, files: CaseFiles) -> Path:
        return self.folder / "cases" / f"{files.identifier}.json"


@dataclass(frozen=True, kw_only=True)
class KeepingScorer:
    """A scorer whose cases are kept; goes to other processes."""

    scorer: CaseScorer
    unfinished: Unfinished

    def __call__(self, files: CaseFiles) -> CaseScores:
        return self.unfinished.score(self.scorer, files)


def settings_of(
    inputs: Inputs,
    labels: Path,
    options: ScoreOptions,
    label_set: LabelSet,
    plans: str | Path | None,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """What the scores of a case depend on besides its files, JSON-ready."""
    described = {"dataset_json": label_set.dataset_json, "plans": plans}
    return {
        "schema_version": SCHEMA_VERSION,
        "labels": str(labels.absolute()),
        "models": [", ".join(str(f.absolute()) for f in m.folders) for m in inputs.models],
        **{
            name: None if path is None else FileHashes().sha256(Path(path))
            for name, path in described.items()
        },
        "options": {k: v for k, v in asdict(options).items() if k not in _OF_THE_REPORT},
        "environment": dict(environment),
    }


def _by_label(items: list[list[Any]]) -> dict[Any, Any]:
    """{label or region: what is kept of it}."""
    return {tuple(label) if isinstance(label, list) else label: of for label, of in items}


def _states(files: CaseFiles) -> list[Any]:
    """Of every file its path and state; None for the state of one that is missing."""
    maps = (files.label, *files.predictions)
    # where nnU-Net's reader of TIFF stacks looks for their spacing
    spacings = [p.with_suffix(".json") for p in maps if p.suffix.lower() in (".tif", ".tiff")]
    paths = (*maps, *files.probabilities, *spacings)
    return [[str(p.absolute()), file_state(p) if p.is_file() else None] for p in paths]
