"""Two phantom sets from two sources and three models, and evaluations that are made up.

The sets are of nnunetv2_lngswr.datasets' thyroid phantom, some patients each, with other seeds. The
models are untrained: what they predict is not what is tested.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from evaluation.report.cases_table import write_cases
from evaluation.report.records import write_summary
from evaluation.rows import MEAN_LABEL, with_worst
from nnunetv2_lngswr.datasets.phantom_images import thyroid_patient
from nnunetv2_lngswr.utils.errors import CommandError
from nnunetv2_lngswr.utils.files import write_file
from tests.evaluation.comparison.results import OPTIONS
from tests.evaluation.report.rows import row, summary_of
from tests.model_folders import make_model_folder

A, B = "Dataset901_HereUS", "Dataset903_ThereUS"
VANILLA, ROBUST = "nnUNetTrainerVanilla", "nnUNetTrainerAT"
PATIENTS, FOLDS = 6, 2
GROUPS = r"p\d+"
# as nnU-Net has them for 2d; trainer, data set, folds
MODELS = ((VANILLA, A, (0, 1)), (ROBUST, A, (0, 1)), (VANILLA, B, (0,)))


def write_world(root: Path) -> None:
    """Write nnUNet_raw, nnUNet_preprocessed and nnUNet_results below `root`."""
    for seed, (name, label, channel) in enumerate(((A, "nodule", "US"), (B, "Nodule", "sono"))):
        write_data_set(root, name, seed=seed, label=label, channel=channel)
    for trainer, name, folds in MODELS:
        raw = read_json(root / "nnUNet_raw" / name / "dataset.json")
        folder = make_model_folder(
            root / "nnUNet_results" / name,
            labels=raw["labels"],
            folds=folds,
            patch_size=(64, 64),
            reader="NaturalImage2DIO",
            file_ending=".png",
            trainer=trainer,
        )
        change_json(folder / "plans.json", dataset_name=name)
        change_json(folder / "dataset.json", channel_names=raw["channel_names"])


def write_data_set(root: Path, name: str, *, seed: int, label: str, channel: str) -> None:
    """Write a data set whose folds keep patients together."""
    raw, preprocessed = (root / f"nnUNet_{part}" / name for part in ("raw", "preprocessed"))
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        folder.mkdir(parents=True)
    patients = []
    for number in range(PATIENTS):
        cases = list(thyroid_patient(seed, number))
        for case in cases:
            Image.fromarray(case.image).save(raw / "imagesTr" / f"{case.name}_0000.png")
            Image.fromarray(case.label).save(raw / "labelsTr" / f"{case.name}.png")
        patients.append([case.name for case in cases])
    content = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, label: 1},
        "numTraining": sum(map(len, patients)),
        "file_ending": ".png",
    }
    write_file(raw / "dataset.json", json.dumps(content))
    splits = []
    for fold in range(FOLDS):
        parts = [[], []]
        for number, names in enumerate(patients):
            parts[number % FOLDS == fold] += names
        splits.append(dict(zip(("train", "val"), parts)))
    write_file(preprocessed / "splits_final.json", json.dumps(splits))


def model_folder(root: Path, trainer: str, data_set: str) -> Path:
    """Of one of the models."""
    return root / "nnUNet_results" / data_set / f"{trainer}__nnUNetPlans__2d"


def model_folders(root: Path) -> list[Path]:
    """Of all models."""
    return [model_folder(root, trainer, name) for trainer, name, _ in MODELS]


def all_cases(root: Path, data_set: str) -> list[str]:
    """Their names, sorted."""
    images = (root / "nnUNet_raw" / data_set / "imagesTr").glob("*_0000.png")
    return sorted(path.name.removesuffix("_0000.png") for path in images)


def validation_cases(root: Path, data_set: str, fold: int) -> list[str]:
    """Of a fold, sorted."""
    splits = read_json(root / "nnUNet_preprocessed" / data_set / "splits_final.json")
    return sorted(splits[fold]["val"])


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def change_json(path: Path, **changes) -> None:
    """Set entries of a JSON file."""
    path.write_text(json.dumps(read_json(path) | changes))


Dice = Callable[[str, str, str, int, str, str], float]


def made_up_dice(
    trainer: str, trained_on: str, data_set: str, fold: int, case: str, attack: str
) -> float:
    """Different for whatever differs, in [0, 1]."""
    number = sum(map(ord, case)) % 10 + 3 * (int(case[-3]) % 2)
    dice = 0.9 - 0.01 * number - 0.03 * fold
    if trained_on != data_set:
        dice -= 0.15
    if attack != "clean":
        dice -= (0.12 if trainer == ROBUST else 0.3) * (1 + 0.05 * number)
    return dice


class Evaluations:
    """In place of the commands: notes each, and leaves the OUT folder of `lngswr evaluate`.

    The one of number `fails` (from 0) leaves nothing.
    """

    def __init__(self, root: Path, dice: Dice = made_up_dice) -> None:
        self.root, self.dice = root, dice
        self.corruptions: dict[str, list[str]] = {}  # by trainer
        self.commands: list[list[str]] = []
        self.fails = -1

    def __call__(self, command, log, *, environment, say, show=""):
        words = [str(word) for word in command]
        self.commands.append(words)
        if len(self.commands) - 1 == self.fails:
            raise CommandError("lngswr failed")
        model, fold = Path(words[words.index("-m") + 1]), int(words[words.index("-f") + 1])
        data_set, cases = model.parent.name, []
        if "-i" in words:
            data_set = Path(words[words.index("-i") + 1]).parent.name
            cases = all_cases(self.root, data_set)
        else:
            cases = validation_cases(self.root, data_set, fold)
        self.write(Path(words[words.index("-o") + 1]), model, data_set, fold, cases)

    def write(self, out: Path, model: Path, data_set: str, fold: int, cases: list[str]) -> None:
        trainer, trained_on = model.name.split("__")[0], model.parent.name
        (label,) = [n for n in read_json(model / "dataset.json")["labels"] if n != "background"]
        rows = []
        for case in cases:
            made = []
            runs = [("clean", "clean"), ("attack", "pgd_linf")]
            runs += [("shift", name) for name in self.corruptions.get(trainer, ())]
            for kind, attack in runs:
                more = {
                    "attack": {"norm": "linf", "epsilon": 4 / 255},
                    "shift": {"severity": 1},
                }.get(kind, {})
                dice = self.dice(trainer, trained_on, data_set, fold, case, attack)
                for key in ("1", MEAN_LABEL):
                    named = {"label": key, "label_name": label if key == "1" else ""}
                    made.append(row(case, kind, attack, dice, **more, **named))
            rows += with_worst(made)
        summary = summary_of(rows)
        summary["cases"] = cases
        of_model = {"trainer": trainer, "dataset": trained_on, "folder": str(model)}
        of_fold = {"folds": [fold], "checkpoint_sha256": {str(fold): f"{model} {fold}"}}
        summary["model"] |= of_model | of_fold
        summary["options"] |= OPTIONS | {"epsilons": ["4/255"]}
        write_cases(out / "cases.csv", rows)
        write_summary(out / "summary.json", summary)
        for case in cases:
            part = json.dumps({"inputs_sha256": f"{data_set} {case}"})
            write_file(out / "parts" / f"{case}.json", part)
