"""The protocol's commands, in order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nnunetv2_lngswr.experiments.paper.places import Places
from nnunetv2_lngswr.experiments.paper.protocol import ATTACKS, PLANS


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command, and how one sees that it need not be run again."""

    title: str
    command: tuple[str, ...]
    done: Callable[[], bool]
    """Whether its outputs are there."""
    output: Path | None = None
    """What is made of `inputs`, where that can be out of date."""
    inputs: Sequence[Path] = ()


def make_steps(places: Places) -> list[Step]:
    """Return all steps of `places.protocol`, in order."""
    return [
        _splits(places),
        _preprocessing(places),
        *_trainings(places),
        *_attacks(places),
        _table(places),
    ]


def _splits(places: Places) -> Step:
    # first, since nnU-Net's planner stops at other splits of an earlier planning
    files = (str(folder / "splits_final.json") for folder in (places.raw, places.preprocessed))
    return Step(
        title="patient-wise splits",
        command=("install", "-Dm644", *files),
        done=places.splits_are_copied,
    )


def _preprocessing(places: Places) -> Step:
    protocol = places.protocol
    what = ("-d", str(protocol.dataset_id), "-c", protocol.configuration)
    if protocol.plans == PLANS:
        # data that were converted anew have another fingerprint, which nnU-Net keeps otherwise
        command = ("nnUNetv2_plan_and_preprocess", *what, "--verify_dataset_integrity", "--clean")
    else:
        command = ("nnUNetv2_preprocess", *what, "-plans_name", protocol.plans)
    return Step(
        title="plan and preprocess",
        command=command,
        done=lambda: (
            places.cases <= places.preprocessed_cases() and places.labels_are_preprocessed()
        ),
    )


def _trainings(places: Places) -> Iterator[Step]:
    protocol = places.protocol
    for trainer in protocol.trainers:
        for fold in protocol.folds:
            what = (str(protocol.dataset_id), protocol.configuration, str(fold))
            how = ("-tr", trainer, "-p", protocol.plans, *_device(places))
            yield Step(
                title=f"train {trainer}, fold {fold}",
                command=("nnUNetv2_train", *what, *how),
                done=partial(places.trained, trainer, fold),
            )


def _attacks(places: Places) -> Iterator[Step]:
    protocol = places.protocol
    options = ["-f", *map(str, protocol.folds), "--attacks", *ATTACKS, "--corruptions"]
    if protocol.steps is not None:
        options += ["--steps", str(protocol.steps)]
    if protocol.max_cases is not None:
        options += ["--max-cases", str(protocol.max_cases)]
    if not protocol.use_mirroring:
        options += ["--disable_tta"]
    for trainer in protocol.trainers:
        where = ("-m", str(places.model(trainer)), "-o", str(places.output / trainer))
        yield Step(
            title=f"attack {trainer}",
            command=("lngswr", "evaluate", *where, *options, *_device(places)),
            done=partial(places.evaluated, trainer),
            output=places.output / trainer / "summary.json",
            inputs=places.checkpoints(trainer),
        )


def _table(places: Places) -> Step:
    trainers = places.protocol.trainers
    evaluations = (str(places.output / trainer) for trainer in trainers)
    table = str(places.output / "table")
    return Step(
        title="table",
        command=("lngswr", "compare", *evaluations, "-o", table),
        done=lambda: places.compared(trainers),
        output=places.output / "table" / "compare.md",
        inputs=places.evaluations(trainers),
    )


def _device(places: Places) -> tuple[str, ...]:
    device = places.protocol.device
    return () if device is None else ("-device", device)
