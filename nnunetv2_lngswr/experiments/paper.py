"""`lngswr paper lidc | tnscui`: the protocol of the paper from converted data to its table, by the commands that one would type.

patient-wise splits -> plan and preprocess -> train four trainers on each fold (vanilla, LNG-SWR, both with adversarial training) -> attack what
each fold's model predicts on its validation cases (clean, noise as control, PGD Linf and L2, SSAH) -> one table. A step is known to be done by
its outputs, so that a call goes on where the last one stopped, on another machine too. The paper's own settings are not public: budgets
and attacks are the defaults of nnU-Net and of `lngswr evaluate`.
"""

from __future__ import annotations

import filecmp
import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file
from nnunetv2_lngswr.utils.processes import call_command

TRAINERS = (
    "nnUNetTrainerVanilla",
    "nnUNetTrainerLNGSWR",
    "nnUNetTrainerAT",
    "nnUNetTrainerLNGSWRAT",
)
ATTACKS = ("noise", "pgd_linf", "pgd_l2", "ssah")
DATASET_IDS = {"lidc": 620, "tnscui": 610}
EPOCHS = (1, 5, 10, 20, 50, 100, 250)
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
PLANS = "nnUNetPlans"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is run. `dataset_id`: of the converted data; `epochs`: a short budget by the trainers' names, None: nnU-Net's 1000; `plans`: nnU-Net's
    own, or others that lie in nnUNet_preprocessed already; `steps`, `max_cases`, `use_mirroring`: as in `lngswr evaluate`; `device`: None is cuda
    where there is one."""

    dataset_id: int
    configuration: str = "2d"
    folds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: int | None = None
    plans: str = PLANS
    steps: int | None = None
    max_cases: int | None = None
    use_mirroring: bool = True
    device: str | None = None

    def __post_init__(self):
        if not self.folds or min(self.folds) < 0 or len(set(self.folds)) < len(self.folds):
            raise UserError(
                f"folds must be different numbers >= 0, got {' '.join(map(str, self.folds)) or 'none'} (-f)"
            )
        if self.epochs is not None and self.epochs not in EPOCHS:
            raise UserError(
                f"epochs must be one of {', '.join(map(str, EPOCHS))}, got {self.epochs} (--epochs)"
            )

    @property
    def trainers(self) -> tuple[str, ...]:
        suffix = (
            "" if self.epochs is None else f"_{self.epochs}epoch{'s' if self.epochs > 1 else ''}"
        )
        return tuple(t + suffix for t in TRAINERS)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command. `done()`: whether its outputs are there."""

    title: str
    command: tuple[str, ...]
    done: Callable[[], bool]


def run_paper(
    protocol: Protocol,
    output: str | Path,
    *,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Run the steps that are not done yet, or only tell them (`dry_run`). Evaluations and the table go below `output`, everything else where nnU-Net
    puts it. Returns the table's file. ValueError if nnU-Net's folders are not set, the data set is not there or has no splits, `output` is of
    another protocol, or a command fails."""
    output = Path(output).resolve()
    places = Places.of(protocol, output)
    marker = output / "protocol.json"
    # the device does not change what is measured
    settings = json.loads(json.dumps({k: v for k, v in asdict(protocol).items() if k != "device"}))
    if marker.is_file() and read_json(marker) != settings:
        raise UserError(
            f"{output} is of another protocol (see {marker.name} there): choose another folder (-o)"
        )
    if not dry_run:
        from nnunetv2_lngswr.installation.register import trainers_are_found

        if not trainers_are_found():
            raise UserError(
                "nnU-Net does not find the LNG-SWR trainers yet: lngswr register (lngswr doctor shows more)"
            )
        if not marker.is_file():
            write_file(marker, json.dumps(settings, indent=1) + "\n")
    steps = make_steps(protocol, places)
    for number, step in enumerate(steps, 1):
        done = step.done()
        say(f"# [{number}/{len(steps)}] {step.title}{': done before' if done else ''}")
        if dry_run or not done:
            # a training that was cut off is continued
            command = step.command if dry_run else places.resumed(step.command)
            say(shlex.join(command))
        if not (dry_run or done):
            _run(command)
            if not step.done():
                raise UserError(
                    f"{step.title}: the command ended without its outputs: {shlex.join(command)}"
                )
    return output / "table" / "compare.md"


def make_steps(protocol: Protocol, places: Places) -> list[Step]:
    """All steps in order."""
    number, configuration = str(protocol.dataset_id), protocol.configuration
    device = () if protocol.device is None else ("-device", protocol.device)
    steps = [
        # first, since nnU-Net's planner stops at other splits of an earlier planning
        Step(
            title="patient-wise splits",
            command=(
                "install",
                "-Dm644",
                str(places.raw / "splits_final.json"),
                str(places.preprocessed / "splits_final.json"),
            ),
            done=places.splits_are_copied,
        ),
        Step(
            title="plan and preprocess",
            command=(
                "nnUNetv2_plan_and_preprocess",
                "-d",
                number,
                "-c",
                configuration,
                "--verify_dataset_integrity",
            ),
            done=lambda: (
                places.cases <= places.preprocessed_cases() and places.labels_are_preprocessed()
            ),
        ),
    ]
    for trainer in protocol.trainers:
        for fold in protocol.folds:
            command = (
                "nnUNetv2_train",
                number,
                configuration,
                str(fold),
                "-tr",
                trainer,
                "-p",
                protocol.plans,
                *device,
            )
            # by default arguments: each step has its own trainer and fold
            steps.append(
                Step(
                    title=f"train {trainer}, fold {fold}",
                    command=command,
                    done=lambda t=trainer, f=fold: places.trained(t, f),
                )
            )
    for trainer in protocol.trainers:
        command = ("lngswr", "evaluate", "-m", str(places.model(trainer)), "-o", str(places.output / trainer), "-f", *map(str, protocol.folds),
                   "--attacks", *ATTACKS, "--corruptions")  # fmt: skip
        if protocol.steps is not None:
            command += ("--steps", str(protocol.steps))
        if protocol.max_cases is not None:
            command += ("--max-cases", str(protocol.max_cases))
        if not protocol.use_mirroring:
            command += ("--disable_tta",)
        steps.append(
            Step(
                title=f"attack {trainer}",
                command=command + device,
                done=lambda t=trainer: places.evaluated(t),
            )
        )
    results = [str(places.output / t) for t in protocol.trainers]
    table = places.output / "table"
    command = ("python", "-m", "evaluation.compare", *results, "-o", str(table))
    steps.append(
        Step(title="table", command=command, done=lambda: places.compared(protocol.trainers))
    )
    return steps


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things are, and what is there. `cases`: names of the converted cases."""

    protocol: Protocol
    raw: Path
    preprocessed: Path
    results: Path
    output: Path
    cases: frozenset[str]

    @classmethod
    def of(cls, protocol: Protocol, output: Path) -> Places:
        missing = [name for name in FOLDERS if not os.environ.get(name)]
        if missing:
            raise UserError(f"set nnU-Net's environment variables first: {', '.join(missing)}")
        folders = [Path(os.environ[name]) for name in FOLDERS]
        found = sorted(folders[0].glob(f"Dataset{protocol.dataset_id:03d}_*"))
        if len(found) != 1:
            raise UserError(f"nnUNet_raw ({folders[0]}) must hold one data set of number {protocol.dataset_id}, it has "
                             f"{', '.join(p.name for p in found) or 'none'}: lngswr convert-dataset makes it, -d names another number")  # fmt: skip
        for name in ("dataset.json", "splits_final.json"):
            if not (found[0] / name).is_file():
                raise UserError(
                    f"{found[0]} has no {name}: lngswr convert-dataset writes it, and splits_final.json also lngswr splits"
                )
        folds = read_json(found[0] / "splits_final.json")
        if max(protocol.folds) >= len(folds):
            raise UserError(
                f"fold {max(protocol.folds)} was asked for, {found[0] / 'splits_final.json'} has {len(folds)}"
            )
        cases = frozenset(
            case for fold in folds for part in ("train", "val") for case in fold[part]
        )
        name = found[0].name
        return cls(
            protocol=protocol,
            raw=found[0],
            preprocessed=folders[1] / name,
            results=folders[2] / name,
            output=output,
            cases=cases,
        )

    def model(self, trainer: str) -> Path:
        return self.results / f"{trainer}__{self.protocol.plans}__{self.protocol.configuration}"

    def preprocessed_cases(self) -> set[str]:
        """Finished cases of the configuration; none without plans."""
        plans = self.preprocessed / f"{self.protocol.plans}.json"
        if not plans.is_file():
            if self.protocol.plans != PLANS:  # nnU-Net's planner would not write them
                raise UserError(f"{plans} does not exist (-p)")
            return set()
        configurations = read_json(plans, needs=("configurations",))["configurations"]
        if self.protocol.configuration not in configurations:
            raise UserError(
                f"{plans} has no configuration {self.protocol.configuration}; it has {', '.join(configurations)} (-c)"
            )
        configuration = configurations[self.protocol.configuration]
        # a configuration may inherit from another one
        while "data_identifier" not in configuration:
            configuration = configurations[configuration["inherits_from"]]
        # nnU-Net writes a case's properties last
        return {
            p.stem for p in (self.preprocessed / configuration["data_identifier"]).glob("*.pkl")
        }

    def splits_are_copied(self) -> bool:
        copy = self.preprocessed / "splits_final.json"
        same = copy.is_file() and read_json(copy) == read_json(self.raw / "splits_final.json")
        if self.begun and not same:
            raise UserError(f"{copy} is not that of {self.raw}, and {', '.join(self.begun)} were trained with it: mend it by hand, or remove "
                             "those results")  # fmt: skip
        return same

    def labels_are_preprocessed(self) -> bool:
        """Whether the labels, of which nnU-Net's preprocessing keeps a copy, are still those of the data, which may have been converted anew."""
        ending = read_json(self.raw / "dataset.json", needs=("file_ending",))["file_ending"]
        labels, copies = self.raw / "labelsTr", self.preprocessed / "gt_segmentations"
        # by content: times do not survive a copy to another machine
        different, missing = filecmp.cmpfiles(
            labels, copies, [f"{case}{ending}" for case in self.cases], shallow=False
        )[1:]
        if self.begun and (different or missing):
            raise UserError(f"{labels} has changed since it was preprocessed into {self.preprocessed}, and {', '.join(self.begun)} were trained "
                             f"on that: remove it and those results in {self.results}, or convert as before")  # fmt: skip
        return not different and not missing

    @property
    def begun(self) -> list[str]:
        """Trainers that have left a checkpoint."""
        return [
            t for t in self.protocol.trainers if any(self.model(t).glob("fold_*/checkpoint_*.pth"))
        ]

    def trained(self, trainer: str, fold: int) -> bool:
        folder = self.model(trainer) / f"fold_{fold}"
        return (folder / "checkpoint_final.pth").is_file() and (
            folder / "validation" / "summary.json"
        ).is_file()

    def evaluated(self, trainer: str) -> bool:
        checkpoints = [
            self.model(trainer) / f"fold_{f}" / "checkpoint_final.pth" for f in self.protocol.folds
        ]
        return _newer(self.output / trainer / "summary.json", checkpoints)

    def compared(self, trainers: Sequence[str]) -> bool:
        return _newer(
            self.output / "table" / "compare.md",
            [self.output / t / "summary.json" for t in trainers],
        )

    def resumed(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """The command of a training goes on from its checkpoint if there is one."""
        if command[0] != "nnUNetv2_train":
            return command
        fold = self.model(command[command.index("-tr") + 1]) / f"fold_{command[3]}"
        return command + ("--c",) if any(fold.glob("checkpoint_*.pth")) else command


def _newer(output: Path, inputs: Sequence[Path]) -> bool:
    """Whether `output` was made of `inputs` as they are."""
    return output.is_file() and all(
        i.is_file() and i.stat().st_mtime_ns <= output.stat().st_mtime_ns for i in inputs
    )


def _run(command: Sequence[str]) -> None:
    """Run one command with its output shown as it comes."""
    if command[0] == "install":
        write_file(Path(command[3]), Path(command[2]).read_bytes())
        return
    status = call_command(command)
    if status != 0:
        raise UserError(
            f"{command[0]} failed (exit status {status}); the same lngswr call goes on from here: {shlex.join(command)}"
        )
