"""One benchmark: what is the same for all of its runs, and where everything lies."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.attacks.suites import words_of_before
from nnunetv2_lngswr.experiments.robustness.presets import Preset
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import holds_nothing, read_json, write_file

MARKER = "benchmark.json"
EQUAL_TIME = " (same time)"
"""Behind the name of an arm that is trained for as long as the baseline."""
_EPOCHS_OF_PLANS = re.compile(r"lngswrBenchmarkSeed\d+Epochs(\d+)")  # as `plan_run` names them
LOW_RESOLUTION_PLANS = "lngswrLowResPlans"
# options of lngswr evaluate in benchmarks of earlier versions, by what they are called now
RENAMED_OPTIONS = {"--shifts": "--corruptions"}


@dataclass(frozen=True)
class TrainingRun:
    """One trained model: an arm or variant with its seed and fold."""

    arm: str
    seed: int
    fold: int
    plans: str
    """Name of its plans."""
    trainer: str

    @property
    def at_equal_time(self) -> tuple[str, int] | None:
        """The arm that is read at equal time, and its epochs; None of other runs."""
        found = _EPOCHS_OF_PLANS.match(self.plans)
        return (self.arm.removesuffix(EQUAL_TIME), int(found[1])) if found else None

    @property
    def name(self) -> str:
        """The arm's name as part of a file's name, with seed and fold."""
        arm = self.arm.replace(" (", "_").replace(")", "").replace(" ", "_")
        return f"{arm}_seed{self.seed}_fold{self.fold}"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What is the same for all runs of one output folder."""

    output: Path
    raw: Path
    """nnUNet_raw, which is only read."""
    dataset: str
    configuration: str
    preset_name: str
    preset: Preset
    settings: Mapping[str, Any]
    """A "lngswr" entry for the plans of all arms."""
    hold_out: int | None
    """A fold whose validation cases are neither trained on nor evaluated."""
    device: str
    groups: str | None = None
    """As `lngswr evaluate --groups`. Of the reports alone: a folder goes on with others."""

    @property
    def said(self) -> str:
        """Preset, budget and evaluation, for people."""
        budget = self.preset.budget
        return (
            f"Preset {self.preset_name}: {budget['num_epochs']} x "
            f"{budget['num_iterations_per_epoch']} iterations for every arm, evaluated with "
            f"`{' '.join(self.preset.evaluation)}`"
        )

    @property
    def dimensions(self) -> int:
        return 2 if self.configuration == "2d" else 3

    @property
    def dataset_id(self) -> str:
        return str(int(self.dataset[len("Dataset") :].split("_")[0]))

    @property
    def base_plans(self) -> str:
        """Name of the plans that nnU-Net's planner writes."""
        return LOW_RESOLUTION_PLANS if self.preset.shortest_side else "nnUNetPlans"

    @property
    def preprocessed(self) -> Path:
        return self.output / "nnUNet_preprocessed" / self.dataset

    @property
    def fingerprint(self) -> Path:
        return self.preprocessed / "dataset_fingerprint.json"

    def plans_file(self, name: str) -> Path:
        """Where the plans of this name lie."""
        return self.preprocessed / f"{name}.json"

    def fold_folder(self, run: TrainingRun) -> Path:
        """Where nnU-Net trains this run."""
        model = f"{run.trainer}__{run.plans}__{self.configuration}"
        return self.output / "nnUNet_results" / self.dataset / model / f"fold_{run.fold}"

    def evaluation_folder(self, run: TrainingRun) -> Path:
        """Where this run's evaluation lies.

        By what was trained, not by the arm's name: an arm may come to mean other plans.
        """
        name = f"{run.trainer}__{run.plans}__{self.configuration}__fold_{run.fold}"
        return self.output / "evaluations" / name


def find_raw(dataset: str) -> Path:
    """Return nnUNet_raw, with this data set in it.

    Raises
    ------
    UserError
        The variable is not set, or the data set is not there.
    """
    raw = os.environ.get("nnUNet_raw")
    if not raw:
        raise UserError(
            f"no data set {dataset} in nnUNet_raw (not set): export nnUNet_raw=FOLDER, which has it"
        )
    named = re.fullmatch(r"Dataset\d+_[^/\\]+", dataset)
    if not named or not (Path(raw) / dataset / "dataset.json").is_file():
        there = sorted(p.name for p in Path(raw).glob("Dataset*_*"))
        has = f"; it has {', '.join(there)}" if there else ""
        raise UserError(
            f"no data set {dataset} in nnUNet_raw ({raw}): "
            f"give its full name, such as Dataset611_ThyroidUS, and put it there{has}"
        )
    return Path(raw)


def claim(benchmark: Benchmark, *, write: bool = True) -> None:
    """Make the output folder this benchmark's; never touch another one.

    Parameters
    ----------
    benchmark
        Its settings are noted in the folder.
    write
        Otherwise only look.

    Raises
    ------
    UserError
        The folder holds something else, or a benchmark of other settings.
    """
    record = _record(benchmark)
    output, marker = benchmark.output, benchmark.output / MARKER
    if marker.is_file():
        there = _with_new_names(read_json(marker, needs=("dataset",)))
        changed = ", ".join(k for k in record if there.get(k) != record[k])
        if changed:
            raise UserError(
                f"{output} holds a benchmark of other settings ({changed}): "
                "choose another folder with -o"
            )
    elif not holds_nothing(output):
        raise UserError(f"{output} exists and holds no benchmark: choose another folder with -o")
    if write:
        write_file(marker, json.dumps(record, indent=1) + "\n")


def _record(benchmark: Benchmark) -> dict[str, Any]:
    record = {
        "dataset": benchmark.dataset,
        "configuration": benchmark.configuration,
        "preset": benchmark.preset_name,
        **dataclasses.asdict(benchmark.preset),
        "settings": benchmark.settings,
        "hold_out": benchmark.hold_out,
    }
    return json.loads(json.dumps(record))  # as it is read again


def _with_new_names(record: dict[str, Any]) -> dict[str, Any]:
    options: list[str] = record.get("evaluation", [])
    renamed = [RENAMED_OPTIONS.get(o, o) for o in options]
    return record | {"evaluation": words_of_before(renamed)}
