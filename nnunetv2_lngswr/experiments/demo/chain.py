"""The demo's steps for one set, by nnU-Net's own commands."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunetv2_lngswr.datasets.phantom import PHANTOM_SETS, write_phantom
from nnunetv2_lngswr.experiments.demo.places import FOLD, TRAINER, Places, nnunet_folders
from nnunetv2_lngswr.experiments.demo.plans import BUDGETS, PLANS_NAME, shrink_plans
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.processes import NOTHING, run_command

# One process per pool where there is a choice: starting one (spawn + import torch) costs more than
# the work of a phantom. nnUNet_n_proc_DA sets the planner's threads too and must not be 0 there;
# with a seed our trainers use none.
CHILD_ENVIRONMENT = {
    "nnUNet_def_n_proc": "1",
    "nnUNet_n_proc_DA": "2",
    "nnUNet_compile": "f",
    "MPLBACKEND": "Agg",
}


class Chain:
    """The steps for one set, in order.

    A step that ended leaves a file in OUTPUT/steps, and is then skipped.

    Parameters
    ----------
    kind
        "2d" or "3d".
    output
        The demo's folder.
    device
        As for nnU-Net's commands.
    say
        Receives each line for the user.
    """

    def __init__(self, kind: str, output: Path, device: str, say: Callable[[str], None]):
        self.kind, self.output, self.device, self.say = kind, output, device, say
        self.phantom = PHANTOM_SETS[kind]
        self.budget = BUDGETS[kind]
        self.places = Places(kind, output)

    def run(self) -> None:
        """Run the steps that have not ended yet.

        Raises
        ------
        CommandError
            One failed, with its last lines and where its log is.
        """
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
        what = ("-d", str(self.phantom.dataset_id), "-c", self.budget.configuration)
        how = ("--verify_dataset_integrity", "-npfp", "1", "-np", "1")
        self._command(
            "preprocess",
            ["nnUNetv2_plan_and_preprocess", *what, *how],
            show=r"^(Fingerprint extraction|Experiment planning|Preprocessing)\.",
        )

    def _write_plans(self) -> None:
        plans = json.loads((self.places.preprocessed / "nnUNetPlans.json").read_text())
        small = json.dumps(shrink_plans(plans, self.budget), indent=4)
        write_file(self.places.preprocessed / f"{PLANS_NAME}.json", small)
        self.say(f'  {PLANS_NAME}.json: fewer features, "lngswr": {json.dumps(self.budget.entry)}')
        splits = (self.places.raw / "splits_final.json").read_text()
        write_file(self.places.preprocessed / "splits_final.json", splits)
        self.say("  splits_final.json: a patient's images stay together")

    def _train(self) -> None:
        what = (str(self.phantom.dataset_id), self.budget.configuration, str(FOLD))
        command = ["nnUNetv2_train", *what, "-tr", TRAINER, "-p", PLANS_NAME]
        if any(self.places.fold.glob("checkpoint_*.pth")):
            command.append("--c")
        self._command(
            "train",
            [*command, "-device", self.device],
            show=r"Epoch \d+$|train_loss|Pseudo dice|Mean Validation Dice",
        )

    def _predict(self) -> None:
        files = ("-i", self.places.raw / "imagesTs", "-o", self.places.predictions)
        what = ("-d", str(self.phantom.dataset_id), "-c", self.budget.configuration)
        model = ("-f", str(FOLD), "-tr", TRAINER, "-p", PLANS_NAME)
        how = ("-npp", "0", "-nps", "0", "-device", self.device)
        self._command(
            "predict",
            ["nnUNetv2_predict", *files, *what, *model, *how],
            show=r"There are \d+ cases",
        )

    def _evaluate(self) -> None:
        predictions = self.places.predictions
        described = ("-djfile", predictions / "dataset.json", "-pfile", predictions / "plans.json")
        folders = (self.places.raw / "labelsTs", predictions)
        self._command("evaluate", ["nnUNetv2_evaluate_folder", *folders, *described, "-np", "1"])

    def _evaluate_robustness(self) -> None:
        raw = self.places.raw
        model = ("-m", self.places.model, "-f", str(FOLD))
        files = ("-i", raw / "imagesTs", "-l", raw / "labelsTs", "-o", self.places.robustness)
        attacks = ("--attacks", "worst", "--epsilons", "4/255", "8/255", "--epsilons-l2", "none")
        cost = ("--corruptions", "none", "--max-cases", "2", "--disable_tta")
        how = ("-device", self.device, "--disable_progress_bar")
        self._command(
            "robustness",
            ["lngswr", "evaluate", *model, *files, *attacks, *cost, *how],
            show=r".",
        )

    def _command(self, name: str, command: Sequence[str | Path], show: str = NOTHING) -> None:
        folders = {key: str(folder) for key, folder in nnunet_folders(self.output).items()}
        log = self.output / "logs" / f"{self.kind}_{name}.log"
        run_command(command, log, environment=CHILD_ENVIRONMENT | folders, say=self.say, show=show)
