"""Training and evaluating the runs, several side by side where that is faster."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event

from nnunetv2_lngswr.experiments.robustness.benchmark import TrainingRun
from nnunetv2_lngswr.experiments.robustness.commands import Commands, side_by_side
from nnunetv2_lngswr.utils.processes import end_running


def run_all(commands: Commands, runs: Sequence[TrainingRun]) -> None:
    """Train and evaluate; the first failure, or Ctrl-C, starts no further run.

    Raises
    ------
    CommandError
        A training or an evaluation failed.
    """

    ending = Event()

    def one(run: TrainingRun) -> None:
        for step in (train, evaluate):
            # between the two no command runs that could be asked to end
            if not ending.is_set():
                step(commands, run)

    with ThreadPoolExecutor(1 if commands.dry_run else side_by_side(commands.benchmark)) as pool:
        try:
            for done in as_completed([pool.submit(one, run) for run in runs]):
                done.result()
        except BaseException:
            ending.set()
            pool.shutdown(wait=False, cancel_futures=True)
            end_running()
            raise


def train(commands: Commands, run: TrainingRun) -> None:
    """Train a run unless that is done; one that was cut off goes on from its last checkpoint."""
    its = commands.benchmark
    folder = its.fold_folder(run)
    if (folder / "validation" / "summary.json").is_file():
        return
    command = ["nnUNetv2_train", its.dataset_id, its.configuration, str(run.fold)]
    command += ["-tr", run.trainer, "-p", run.plans, "-device", its.device]
    if any(folder.glob("checkpoint_*.pth")):
        command.append("--c")
    show = r"Epoch time|Mean Validation Dice|CATASTROPHIC"
    commands.run(f"train_{run.name}", command, show=show)


def evaluate(commands: Commands, run: TrainingRun) -> None:
    """Evaluate a trained run on the validation cases of its fold unless that is done."""
    its = commands.benchmark
    folder = its.evaluation_folder(run)
    if (folder / "summary.json").is_file():
        return
    model = its.fold_folder(run).parent
    command = ["lngswr", "evaluate", "-m", str(model), "-f", str(run.fold), "-o", str(folder)]
    command += [*its.preset.evaluation, "-device", its.device, "--disable_progress_bar"]
    command += [f"--groups={its.groups}"] if its.groups is not None else []
    commands.run(f"evaluate_{run.name}", command)
