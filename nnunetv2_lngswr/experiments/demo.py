"""`lngswr demo`: the whole chain on phantom data, by nnU-Net's own commands, each shown as one would type it.

generate -> nnUNetv2_plan_and_preprocess -> smaller plans and patient-wise splits -> nnUNetv2_train -> nnUNetv2_predict ->
nnUNetv2_evaluate_folder -> lngswr evaluate -> table and picture. Everything lands below one output folder, with a log per step. A
step that has ended is not repeated by the next call, an interrupted training goes on from its last checkpoint.

The budget is a few hundred iterations of a small network: the result shows that the chain works, not what the method can do.
"""

import dataclasses
import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.datasets.phantom import PHANTOM_SETS, write_phantom
from nnunetv2_lngswr.installation.register import trainers_are_found
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path, write_file
from nnunetv2_lngswr.utils.processes import NOTHING, run_command

TRAINER = "nnUNetTrainerLNGSWR"
PLANS_NAME = "lngswrDemoPlans"
FOLD = 0
MARKER = "lngswr_demo.json"


@dataclass(frozen=True)
class Budget:
    """How a set is trained: the configuration, what of its network is kept, and the plans' `lngswr` entry."""

    configuration: str
    batch_size: int
    stages: int
    features: int
    entry: dict


BUDGETS = {
    "2d": Budget(
        "2d",
        batch_size=4,
        stages=5,
        features=8,
        entry={
            "num_epochs": 6,
            "num_iterations_per_epoch": 50,
            "num_val_iterations_per_epoch": 4,
            "seed": 0,
        },
    ),
    "3d": Budget(
        "3d_fullres",
        batch_size=2,
        stages=4,
        features=8,
        entry={
            "num_epochs": 6,
            "num_iterations_per_epoch": 40,
            "num_val_iterations_per_epoch": 4,
            "seed": 0,
        },
    ),
}

# One process per pool where there is a choice: starting one (spawn + import torch) costs more than the
# work of a phantom. nnUNet_n_proc_DA sets the planner's threads too and must not be 0 there; with a seed our trainers use none.
CHILD_ENVIRONMENT = {
    "nnUNet_def_n_proc": "1",
    "nnUNet_n_proc_DA": "2",
    "nnUNet_compile": "f",
    "MPLBACKEND": "Agg",
}


def run_demo(
    output: Path | str,
    sets: Sequence[str] = ("2d", "3d"),
    device: str = "cpu",
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Runs the chain for each of `sets` ("2d", "3d") below `output` and returns that folder.

    `say` receives each line for the user. Raises ValueError if `output` holds something else, or a demo of other settings and not
    `overwrite`, if the trainers are not registered, or if a command fails (with its last lines and where its log is).
    """
    sets = list(dict.fromkeys(sets))
    if not sets or not set(sets) <= set(BUDGETS):
        raise UserError(
            f"sets must be one or more of {', '.join(BUDGETS)}, got {' '.join(sets) or 'none'}"
        )
    if not trainers_are_found():
        raise UserError(
            "nnU-Net does not find the LNG-SWR trainers yet: lngswr register (lngswr doctor shows more)"
        )
    output = Path(output).resolve()
    _claim(output, device, overwrite)

    started = time.monotonic()
    say(f"Everything goes to {output}. To go on there yourself with nnU-Net's commands:")
    for name, folder in _nnunet_folders(output).items():
        say(f"  export {name}={shlex.quote(str(folder))}")
    for kind in sets:
        _Chain(kind, output, device, say).run()

    say("")
    for line in result_table(output, sets):
        say(line)
    say(
        "Phantoms and a budget of minutes: this shows that the chain works, not what the method can do."
    )
    say("")
    picture = draw_overlays(output, sets)
    say(f"Picture (image, reference, prediction): {picture}")
    for kind in sets:
        say(f"Model of {kind}: {_Places(kind, output).model}")
    say(f"{time.monotonic() - started:.0f} s in all.")
    return output


def shrink_plans(plans: dict, budget: Budget, plans_name: str = PLANS_NAME) -> dict:
    """A copy of `plans` under another name whose configuration has fewer stages and features, and the budget's `lngswr` entry.

    The data stay as preprocessed (the configuration keeps its data_identifier); only the network and the training change.
    """
    plans = json.loads(json.dumps(plans)) | {"plans_name": plans_name}
    configuration = plans["configurations"][budget.configuration]
    network = configuration["architecture"]["arch_kwargs"]
    stages = min(budget.stages, network["n_stages"])
    network["n_stages"] = stages
    network["features_per_stage"] = [budget.features * 2**stage for stage in range(stages)]
    for key in ("kernel_sizes", "strides", "n_conv_per_stage"):
        network[key] = network[key][:stages]
    network["n_conv_per_stage_decoder"] = network["n_conv_per_stage_decoder"][: stages - 1]
    configuration["batch_size"] = budget.batch_size
    configuration["lngswr"] = dict(budget.entry)
    return plans


def result_table(output: Path, sets: Sequence[str]) -> list[str]:
    """Foreground Dice per test case, from the summary.json that nnUNetv2_evaluate_folder wrote, as lines of text."""
    lines = [f"{'set':4}{'test case':20}{'Dice':>7}"]
    for kind in sets:
        summary = json.loads((_Places(kind, output).predictions / "summary.json").read_text())
        for case in summary["metric_per_case"]:
            name = Path(case["prediction_file"]).name.removesuffix(PHANTOM_SETS[kind].file_ending)
            lines.append(f"{kind:4}{name:20}{case['metrics']['1']['Dice']:7.3f}")
        lines.append(f"{kind:4}{'mean':20}{summary['foreground_mean']['Dice']:7.3f}")
    return lines


def draw_overlays(output: Path, sets: Sequence[str], cases_per_set: int = 2) -> Path:
    """Draws image, reference and prediction of the first test cases of each set (3D: the slice with most nodule) to overlay.png."""
    import matplotlib.figure
    import SimpleITK as sitk

    def read(path: Path):
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))

    rows = []
    for kind in sets:
        places, ending = _Places(kind, output), PHANTOM_SETS[kind].file_ending
        for path in sorted(places.predictions.glob(f"*{ending}"))[:cases_per_set]:
            name = path.name.removesuffix(ending)
            image = read(places.raw / "imagesTs" / f"{name}_0000{ending}")
            reference, prediction = read(places.raw / "labelsTs" / path.name), read(path)
            if image.ndim == 3:
                z = int(reference.sum(axis=(1, 2)).argmax())
                image, reference, prediction = image[z], reference[z], prediction[z]
            rows.append((name, image, reference, prediction))

    figure = matplotlib.figure.Figure(figsize=(9, 2.6 * len(rows)), layout="constrained")
    for axes, (name, image, reference, prediction) in zip(
        figure.subplots(len(rows), 3, squeeze=False), rows
    ):
        for axis, title, mask, colour in zip(
            axes,
            (name, "reference", "prediction"),
            (None, reference, prediction),
            (None, "lime", "red"),
        ):
            axis.imshow(image, cmap="gray")
            if mask is not None and mask.any():
                axis.contour(mask, levels=[0.5], colors=colour, linewidths=1)
            axis.set_title(title if mask is None or mask.any() else f"{title}: empty", fontsize=9)
            axis.set_axis_off()
    picture = output / "overlay.png"
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=110)
    return picture


class _Places:
    """Where nnU-Net and the demo keep what belongs to one set."""

    def __init__(self, kind: str, output: Path):
        folders = _nnunet_folders(output)
        name = PHANTOM_SETS[kind].dataset_name
        self.raw = folders["nnUNet_raw"] / name
        self.preprocessed = folders["nnUNet_preprocessed"] / name
        self.model = (
            folders["nnUNet_results"]
            / name
            / f"{TRAINER}__{PLANS_NAME}__{BUDGETS[kind].configuration}"
        )
        self.fold = self.model / f"fold_{FOLD}"
        self.predictions = output / "predictions" / name
        self.robustness = output / "robustness" / name


class _Chain:
    """The steps for one set, in order. A step that ended leaves a file in OUTPUT/steps, and is then skipped."""

    def __init__(self, kind: str, output: Path, device: str, say: Callable[[str], None]):
        self.kind, self.output, self.device, self.say = kind, output, device, say
        self.phantom, self.budget, self.places = (
            PHANTOM_SETS[kind],
            BUDGETS[kind],
            _Places(kind, output),
        )

    def run(self) -> None:
        self.say("")
        self.say(f"== {self.kind}: {self.phantom.dataset_name} ==")
        self._step("generate", self._generate)
        self._step("preprocess", self._preprocess)
        self._step("plans", self._write_plans)
        self._step("train", self._train)
        self._step("predict", self._predict)
        self._step("evaluate", self._evaluate)
        self._step("robustness", self._evaluate_robustness)

    def _step(self, name: str, action: Callable[[], None]) -> None:
        done = self.output / "steps" / f"{self.kind}_{name}"
        if done.exists():
            self.say(f"{name}: done before")
            return
        started = time.monotonic()
        action()
        done.parent.mkdir(exist_ok=True)
        done.touch()
        self.say(f"{name}: {time.monotonic() - started:.0f} s")

    def _generate(self) -> None:
        write_phantom(self.kind, self.places.raw.parent)

    def _preprocess(self) -> None:
        self._command(
            "preprocess",
            [
                "nnUNetv2_plan_and_preprocess",
                "-d",
                str(self.phantom.dataset_id),
                "-c",
                self.budget.configuration,
                "--verify_dataset_integrity",
                "-npfp",
                "1",
                "-np",
                "1",
            ],
            show=r"^(Fingerprint extraction|Experiment planning|Preprocessing)\.",
        )

    def _write_plans(self) -> None:
        plans = json.loads((self.places.preprocessed / "nnUNetPlans.json").read_text())
        write_file(
            self.places.preprocessed / f"{PLANS_NAME}.json",
            json.dumps(shrink_plans(plans, self.budget), indent=4),
        )
        self.say(f'  {PLANS_NAME}.json: fewer features, "lngswr": {json.dumps(self.budget.entry)}')
        splits = (self.places.raw / "splits_final.json").read_text()
        write_file(self.places.preprocessed / "splits_final.json", splits)
        self.say("  splits_final.json: a patient's images stay together")

    def _train(self) -> None:
        command = [
            "nnUNetv2_train",
            str(self.phantom.dataset_id),
            self.budget.configuration,
            str(FOLD),
            "-tr",
            TRAINER,
            "-p",
            PLANS_NAME,
        ]
        if any(self.places.fold.glob("checkpoint_*.pth")):
            command.append("--c")
        self._command(
            "train",
            command + ["-device", self.device],
            show=r"Epoch \d+$|train_loss|Pseudo dice|Mean Validation Dice",
        )

    def _predict(self) -> None:
        self._command(
            "predict",
            [
                "nnUNetv2_predict",
                "-i",
                self.places.raw / "imagesTs",
                "-o",
                self.places.predictions,
                "-d",
                str(self.phantom.dataset_id),
                "-c",
                self.budget.configuration,
                "-f",
                str(FOLD),
                "-tr",
                TRAINER,
                "-p",
                PLANS_NAME,
                "-npp",
                "0",
                "-nps",
                "0",
                "-device",
                self.device,
            ],
            show=r"There are \d+ cases",
        )

    def _evaluate(self) -> None:
        self._command(
            "evaluate",
            [
                "nnUNetv2_evaluate_folder",
                self.places.raw / "labelsTs",
                self.places.predictions,
                "-djfile",
                self.places.predictions / "dataset.json",
                "-pfile",
                self.places.predictions / "plans.json",
                "-np",
                "1",
            ],
        )

    def _evaluate_robustness(self) -> None:
        self._command(
            "robustness",
            [
                "lngswr",
                "evaluate",
                "-m",
                self.places.model,
                "-f",
                str(FOLD),
                "-i",
                self.places.raw / "imagesTs",
                "-l",
                self.places.raw / "labelsTs",
                "-o",
                self.places.robustness,
                "--attacks",
                "noise",
                "fgsm",
                "pgd_linf",
                "--epsilons",
                "4/255",
                "8/255",
                "--steps",
                "5",
                "--corruptions",
                "--max-cases",
                "3",
                "--disable_tta",
                "-device",
                self.device,
                "--disable_progress_bar",
            ],
            show=r".",
        )

    def _command(self, name: str, command: list, show: str = NOTHING) -> None:
        folders = {key: str(folder) for key, folder in _nnunet_folders(self.output).items()}
        log = self.output / "logs" / f"{self.kind}_{name}.log"
        run_command(command, log, environment=CHILD_ENVIRONMENT | folders, say=self.say, show=show)


def _nnunet_folders(output: Path) -> dict[str, Path]:
    return {name: output / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}


def _claim(output: Path, device: str, overwrite: bool) -> None:
    """Makes `output` this demo's folder. Never touches a folder that is not a demo's."""
    settings = {
        "version": __version__,
        "device": device,
        "budgets": {kind: dataclasses.asdict(b) for kind, b in BUDGETS.items()},
    }
    marker = output / MARKER
    if output.exists() and not marker.is_file() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and is no demo folder: choose another one with -o")
    if marker.is_file() and overwrite:
        shutil.rmtree(output)
    elif marker.is_file() and json.loads(marker.read_text()) != settings:
        raise UserError(
            f"{output} was made by another version or with other settings (see {marker.name} there): add --overwrite to start over"
        )
    output.mkdir(parents=True, exist_ok=True)
    write_file(marker, json.dumps(settings, indent=4) + "\n")
