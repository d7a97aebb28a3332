"""Where the protocol's files lie, and which of them are there already."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.experiments.paper.protocol import FOLDERS, PLANS, Protocol
from nnunetv2_lngswr.experiments.preprocessed_labels import outdated
from nnunetv2_lngswr.experiments.splits import read_splits
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things are, and what is there."""

    protocol: Protocol
    raw: Path
    """The data set, in nnUNet_raw."""
    preprocessed: Path
    results: Path
    output: Path
    """Evaluations and table."""
    cases: frozenset[str]
    """Names of the converted cases."""

    @classmethod
    def of(cls, protocol: Protocol, output: Path) -> Places:
        """Find the data.

        Parameters
        ----------
        protocol
            Says which.
        output
            Folder for evaluations and table.

        Raises
        ------
        UserError
            nnU-Net's folders are not set; the data set is not there, or lacks a file or a fold.
        """
        missing = [name for name in FOLDERS if not os.environ.get(name)]
        if missing:
            raise UserError(f"set nnU-Net's environment variables first: {', '.join(missing)}")
        raw, preprocessed, results = (Path(os.environ[name]) for name in FOLDERS)
        dataset = _find_dataset(raw, protocol.dataset_id)
        folds = read_splits(dataset / "splits_final.json")
        if max(protocol.folds) >= len(folds):
            raise UserError(
                f"fold {max(protocol.folds)} was asked for, "
                f"{dataset / 'splits_final.json'} has {len(folds)}"
            )
        return cls(
            protocol=protocol,
            raw=dataset,
            preprocessed=preprocessed / dataset.name,
            results=results / dataset.name,
            output=output,
            cases=frozenset(c for fold in folds for part in ("train", "val") for c in fold[part]),
        )

    def model(self, trainer: str) -> Path:
        """Return the folder of a trainer's models."""
        return self.results / f"{trainer}__{self.protocol.plans}__{self.protocol.configuration}"

    def preprocessed_cases(self) -> set[str]:
        """Return the finished cases of the configuration; none without plans.

        Raises
        ------
        UserError
            Plans were named that are not there, or lack the configuration.
        """
        plans = self.preprocessed / f"{self.protocol.plans}.json"
        if not plans.is_file():
            if self.protocol.plans != PLANS:  # nnU-Net's planner would not write them
                raise UserError(f"{plans} does not exist (-p)")
            return set()
        # nnU-Net writes a case's properties last
        files = (self.preprocessed / self._data_identifier(plans)).glob("[!.]*.pkl")
        return {file.stem for file in files}

    def _data_identifier(self, plans: Path) -> str:
        """The folder of the configuration's preprocessed cases."""
        configurations = read_json(plans, needs=("configurations",))["configurations"]
        if not isinstance(configurations, dict):
            raise UserError(f'{plans}: "configurations" must be an object: plan anew')
        name, seen = self.protocol.configuration, set()
        if name not in configurations:
            raise UserError(
                f"{plans} has no configuration {name}; it has {', '.join(configurations)} (-c)"
            )
        # a configuration may inherit from another one
        while name not in seen:
            seen.add(name)
            configuration = configurations.get(name)
            if not isinstance(configuration, dict):
                break
            if isinstance(configuration.get("data_identifier"), str):
                return configuration["data_identifier"]
            name = configuration.get("inherits_from")
        raise UserError(
            f'{plans}: configuration {self.protocol.configuration} has no "data_identifier" and '
            f"inherits none (got {name!r}): plan anew"
        )

    def splits_are_copied(self) -> bool:
        """Whether nnU-Net will use the data set's splits.

        Raises
        ------
        UserError
            It has used others already.
        """
        copy = self.preprocessed / "splits_final.json"
        same = copy.is_file() and read_json(copy) == read_json(self.raw / "splits_final.json")
        if self.begun and not same:
            raise UserError(
                f"{copy} is not that of {self.raw}, and {', '.join(self.begun)} were trained "
                "with it: mend it by hand, or remove those results"
            )
        return same

    def labels_are_preprocessed(self) -> bool:
        """Whether the labels, of which nnU-Net's preprocessing keeps a copy, are still the data's.

        Raises
        ------
        UserError
            They are not, since the data were converted anew, and trainings have used the copies.
        """
        changed = outdated(self.raw, self.preprocessed, self.cases)
        if self.begun and changed:
            raise UserError(
                f"{self.raw / 'labelsTr'} has changed since it was preprocessed into "
                f"{self.preprocessed}, and {', '.join(self.begun)} were trained on that: remove it "
                f"and those results in {self.results}, or convert as before"
            )
        return not changed

    @property
    def begun(self) -> list[str]:
        """Trainers that have left a checkpoint of the data set, not the protocol's alone."""
        files = self.results.glob("*__*__*/fold_*/checkpoint_*.pth")
        return sorted({file.parents[1].name.split("__")[0] for file in files})

    def trained(self, trainer: str, fold: int) -> bool:
        """Whether a training has ended."""
        folder = self.model(trainer) / f"fold_{fold}"
        ended = (folder / "checkpoint_final.pth", folder / "validation" / "summary.json")
        return all(file.is_file() for file in ended)

    def evaluated(self, trainer: str) -> bool:
        """Whether there is an evaluation of a trainer's models as they are."""
        output, inputs = self.output / trainer / "summary.json", self.checkpoints(trainer)
        return _newer(output, inputs) or self._noted(output, inputs)

    def checkpoints(self, trainer: str) -> list[Path]:
        """Return what an evaluation of a trainer's models is made of."""
        model, folds = self.model(trainer), self.protocol.folds
        return [model / f"fold_{fold}" / "checkpoint_final.pth" for fold in folds]

    def compared(self, trainers: Sequence[str]) -> bool:
        """Whether there is a table of these trainers' evaluations as they are."""
        output, inputs = self.output / "table" / "compare.md", self.evaluations(trainers)
        return _newer(output, inputs) or self._noted(output, inputs)

    def evaluations(self, trainers: Sequence[str]) -> list[Path]:
        """Return what the table is made of."""
        return [self.output / trainer / "summary.json" for trainer in trainers]

    def note(self, output: Path, inputs: Mapping[str, Any]) -> None:
        """Note what an output was made of: times tell it only as long as no clock is set back."""
        write_file(self._note_of(output), json.dumps(inputs, indent=1) + "\n")

    def _noted(self, output: Path, inputs: Sequence[Path]) -> bool:
        note = self._note_of(output)
        return output.is_file() and note.is_file() and read_json(note) == state_of(inputs)

    def _note_of(self, output: Path) -> Path:
        return self.output / "made_of" / f"{output.parent.name}.json"

    def resumed(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return a command; a training goes on from its checkpoint if there is one.

        Models that were trained again since their evaluation are evaluated anew.
        """
        if command[:2] == ("lngswr", "evaluate"):
            summary = Path(command[command.index("-o") + 1]) / "summary.json"
            return (*command, "--overwrite") if self._note_of(summary).is_file() else command
        if command[0] != "nnUNetv2_train":
            return command
        fold = self.model(command[command.index("-tr") + 1]) / f"fold_{command[3]}"
        return (*command, "--c") if any(fold.glob("checkpoint_*.pth")) else command


def _find_dataset(raw: Path, number: int) -> Path:
    found = sorted(raw.glob(f"Dataset{number:03d}_*"))
    if len(found) != 1:
        has = ", ".join(p.name for p in found) or "none"
        raise UserError(
            f"nnUNet_raw ({raw}) must hold one data set of number {number}, it has {has}: "
            "lngswr convert-dataset makes it, -d names another number"
        )
    for name in ("dataset.json", "splits_final.json"):
        if not (found[0] / name).is_file():
            raise UserError(
                f"{found[0]} has no {name}: lngswr convert-dataset writes it, "
                "and splits_final.json also lngswr splits"
            )
    return found[0]


def state_of(files: Sequence[Path]) -> dict[str, Any]:
    """Return what changes when a file does, by path: size and time, None where there is none."""
    stats = {str(file): file.stat() if file.is_file() else None for file in files}
    return {path: stat and [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()}


def _newer(output: Path, inputs: Sequence[Path]) -> bool:
    """Whether `output` was made of `inputs` as they are."""
    if not output.is_file():
        return False
    made = output.stat().st_mtime_ns
    return all(i.is_file() and i.stat().st_mtime_ns <= made for i in inputs)
