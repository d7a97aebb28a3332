"""The commands of a robustification, in order, and how one sees that each is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.experiments.robustify.given_model import GivenModel
from nnunetv2_lngswr.experiments.robustify.options import Options

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One robustification, as far as it is decided before anything is written."""

    model: GivenModel
    source: Path
    """What was given: a folder or a zip file."""
    output: Path
    preprocessed: Path
    """The data set's folder in nnUNet_preprocessed."""
    trainer: str
    plans: dict[str, Any]
    options: Options
    device: str

    @property
    def starts(self) -> Path:
        """Folder of what the folds start from."""
        return self.output / "start"

    @property
    def given(self) -> Path:
        """The given model's folder as long as OUT exists."""
        if self.source.is_dir():
            return self.model.folder
        return self.output / "given" / self.model.folder.name

    @property
    def results(self) -> Path:
        """nnU-Net's folder of results."""
        return self.output / "nnUNet_results"

    @property
    def plans_name(self) -> str:
        """Of the new plans."""
        return self.plans["plans_name"]

    @property
    def new_plans(self) -> Path:
        """Their file, in nnUNet_preprocessed."""
        return self.preprocessed / f"{self.plans_name}.json"

    @property
    def robust(self) -> Path:
        """The new model's folder."""
        name = f"{self.trainer}__{self.plans_name}__{self.model.configuration}"
        return self.results / self.model.dataset / name

    @property
    def prediction(self) -> list[str]:
        """nnU-Net's command that predicts with the new model."""
        named = ["-d", self.model.dataset, "-c", self.model.configuration]
        named += ["-f", *map(str, self.model.folds), "-tr", self.trainer, "-p", self.plans_name]
        return ["nnUNetv2_predict", "-i", "IMAGES", "-o", "PREDICTIONS", *named]

    @property
    def comparison(self) -> Path:
        """Folder of the comparison."""
        return self.output / "comparison"

    def evaluation(self, when: str) -> Path:
        """Return the folder of the evaluation `BEFORE` or `AFTER`."""
        return self.output / "evaluations" / when


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command."""

    name: str
    """Of its log."""
    command: Sequence[str]
    done: bool
    """Whether its outputs are there."""
    show: str
    """Regular expression of the lines that are told."""


def steps(plan: Plan) -> Iterator[Step]:
    """Yield the commands in order; a training that was cut off goes on."""
    evaluated = not plan.options.skip_evaluation
    if evaluated:
        yield _evaluate(plan, BEFORE, plan.given, plan.model.checkpoint)
    for fold in plan.model.folds:
        folder = plan.robust / f"fold_{fold}"
        command = ["nnUNetv2_train", plan.model.dataset, plan.model.configuration, str(fold)]
        command += ["-tr", plan.trainer, "-p", plan.plans_name, "-device", plan.device]
        if any(folder.glob("checkpoint_*.pth")):
            command.append("--c")
        yield Step(
            name=f"train_fold_{fold}",
            command=command,
            done=(folder / "validation" / "summary.json").is_file(),
            show=r"Epoch \d+$|Epoch time|Pseudo dice|Mean Validation Dice|CATASTROPHIC",
        )
    if evaluated:
        yield _evaluate(plan, AFTER, plan.robust, "checkpoint_final.pth")


def _evaluate(plan: Plan, when: str, model: Path, checkpoint: str) -> Step:
    folder = plan.evaluation(when)
    command = ["lngswr", "evaluate", "-m", str(model), "-f", *map(str, plan.model.folds)]
    command += ["-chk", checkpoint, *plan.options.evaluation, "-device", plan.device]
    if plan.options.trust_checkpoint:
        command.append("--trust-checkpoint")
    if not plan.options.progress:
        command.append("--disable_progress_bar")
    return Step(
        name=f"evaluate_{when}",
        command=[*command, "-o", str(folder)],
        done=(folder / "summary.json").is_file(),
        show=r"\d%\|",  # of its progress bar: in a log, a line a minute
    )
