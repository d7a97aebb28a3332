"""`lngswr benchmark robustness`: arms trained at one equal budget through nnU-Net and attacked by evaluation.robust, in one table.

nnUNetv2_extract_fingerprint -> nnUNetv2_plan_experiment -> nnUNetv2_preprocess, once; then per seed a copy of the plans with the budget and the
seed, and per seed, fold and arm nnUNetv2_train and lngswr evaluate on the validation cases of the fold; then evaluation.compare over all of
them. Everything lands below the output folder with a log per command, nnUNet_raw is only read. Whatever has ended is not repeated, an interrupted
training goes on from its last checkpoint, an interrupted evaluation with its next run: arms, folds and seeds can be added by later calls.
"""
import dataclasses
import json
import os
import platform
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.commands import run_command
from nnunetv2_lngswr.files import read_json, write_file

ARMS = {
    "vanilla": "nnUNetTrainerVanilla",
    "DA5": "nnUNetTrainerVanillaDA5",
    "LNG": "nnUNetTrainerLNG",
    "SWR": "nnUNetTrainerSWR",
    "LNGSWR": "nnUNetTrainerLNGSWR",
    "AT": "nnUNetTrainerAT",
    "LNGSWRAT": "nnUNetTrainerLNGSWRAT",
}
REFERENCE = "vanilla"
MARKER = "benchmark.json"
LOW_RESOLUTION_PLANS = "lngswrLowResPlans"
EQUAL_TIME = "same time"
# an arm within this of the reference's epoch time has had the same time
TIME_TOLERANCE = 1.05


@dataclass(frozen=True, kw_only=True)
class Preset:
    """`shortest_side`: voxels that the median case keeps along its shortest axis, {2 or 3 dimensions: n}; empty: native resolution. `batch_size`:
    empty: nnU-Net's. `evaluation`: options of lngswr evaluate."""

    shortest_side: Mapping[int, int] = field(default_factory=dict)
    batch_size: Mapping[int, int] = field(default_factory=dict)
    budget: Mapping[str, int]
    evaluation: tuple[str, ...]


PRESETS = {
    # one fold of all arms within two hours on two cores
    "cpu-small": Preset(
        shortest_side={2: 128, 3: 34},
        batch_size={2: 10, 3: 2},
        budget={"num_epochs": 10, "num_iterations_per_epoch": 50, "num_val_iterations_per_epoch": 5},
        evaluation=(
            *("--attacks", "noise", "pgd_linf", "pgd_l2", "ssah_project", "--epsilons", "4/255", "8/255", "--epsilons-l2", "1/255", "2/255"),
            *("--steps", "10", "ssah_project=30", "--max-cases", "20", "--disable_tta"),
        ),
    ),
    "gpu": Preset(
        budget={"num_epochs": 100, "num_iterations_per_epoch": 250, "num_val_iterations_per_epoch": 50},
        evaluation=(
            *("--attacks", "noise", "fgsm", "pgd_linf", "pgd_l2", "segpgd", "apgd", "ssah_project"),
            *("--epsilons", "1/255", "2/255", "4/255", "8/255", "--epsilons-l2", "0.25/255", "0.5/255", "1/255", "2/255"),
        ),
    ),
}


@dataclass(frozen=True)
class Run:
    """One trained model: an arm with its seed and fold. `plans`: the name of its plans."""

    arm: str
    seed: int
    fold: int
    plans: str

    @property
    def trainer(self) -> str:
        return ARMS[self.arm.removesuffix(f" ({EQUAL_TIME})")]

    @property
    def name(self) -> str:
        return f"{self.arm.replace(' (', '_').replace(')', '').replace(' ', '_')}_seed{self.seed}_fold{self.fold}"


def benchmark_robustness(
    dataset: str,
    configuration: str,
    output: Path | str,
    *,
    arms: Sequence[str] = tuple(ARMS),
    folds: Sequence[int] = (0,),
    seeds: Sequence[int] = (0,),
    preset: str = "cpu-small",
    settings: Mapping | None = None,
    equal_time: bool = False,
    device: str = "cpu",
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Trains and evaluates every arm for every seed and fold, and returns `output`, with robustness.md, robustness.json and the comparison's files.

    `dataset`: nnU-Net's name of a data set in nnUNet_raw. `settings`: a "lngswr" entry for the plans of all arms (the budget is the preset's).
    `equal_time`: a second reading, with the arms slower than vanilla trained again for as many epochs as vanilla's time allows.
    `dry_run`: say the commands, run nothing. Raises ValueError for unknown arms, a missing data set, an `output` of other settings, a command that fails.
    """
    arms = list(dict.fromkeys([REFERENCE, *arms]))
    unknown = [a for a in arms if a not in ARMS]
    if unknown:
        raise ValueError(f"unknown arm {', '.join(unknown)}; arms are {', '.join(ARMS)}")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset}; presets are {', '.join(PRESETS)}")
    output = Path(output).resolve()
    benchmark = _Benchmark(output, dataset, configuration, preset, dict(settings or {}), device, dry_run, say)
    benchmark.claim()
    benchmark.prepare()
    runs = []
    for seed in seeds:
        plans = benchmark.plans_of(seed)
        for fold in folds:
            runs += [Run(arm, seed, fold, plans) for arm in arms]
    for run in runs:
        benchmark.train(run)
        benchmark.evaluate(run)
    if equal_time and not dry_run:
        again = list(benchmark.equal_time_runs(runs))
        for run in again:
            benchmark.train(run)
            benchmark.evaluate(run)
        runs += again
    if not dry_run:
        benchmark.write_table(runs)
    return output


def low_resolution_spacing(fingerprint: Mapping, dimensions: int, shortest_side: int) -> list[float]:
    """Target spacing, in the order of the files, at which the median case has `shortest_side` voxels along the shortest of its finest axes
    (2D: two, 3D: three). Axes coarser than that keep their spacing, and nothing is made finer."""
    spacing = [statistics.median(s[a] for s in fingerprint["spacings"]) for a in range(3)]
    shape = [statistics.median(s[a] for s in fingerprint["shapes_after_crop"]) for a in range(3)]
    finest = sorted(range(3), key=lambda a: (spacing[a], -shape[a]))[:dimensions]
    extent = min(shape[a] * spacing[a] for a in finest)
    return [float(max(s, extent / shortest_side)) if shape[a] > 1 else float(s) for a, s in enumerate(spacing)]


class _Benchmark:
    def __init__(self, output: Path, dataset: str, configuration: str, preset: str, settings: dict, device: str, dry_run: bool, say):
        self.output, self.dataset, self.configuration, self.settings = output, dataset, configuration, settings
        self.preset_name, self.preset = preset, PRESETS[preset]
        self.device, self.dry_run, self.say = device, dry_run, say
        self.dimensions = 2 if configuration == "2d" else 3
        raw = os.environ.get("nnUNet_raw")
        if raw is None or not (Path(raw) / dataset / "dataset.json").is_file():
            raise ValueError(f"no data set {dataset} in nnUNet_raw ({raw or 'not set'}): give its full name, such as Dataset611_ThyroidUS")
        self.raw = Path(raw)
        self.preprocessed = output / "nnUNet_preprocessed" / dataset
        self.base_plans = LOW_RESOLUTION_PLANS if self.preset.shortest_side else "nnUNetPlans"

    def claim(self) -> None:
        """Makes `output` this benchmark's folder; never touches another one."""
        record = {
            "dataset": self.dataset,
            "configuration": self.configuration,
            "preset": self.preset_name,
            **dataclasses.asdict(self.preset),
            "settings": self.settings,
        }
        record = json.loads(json.dumps(record))
        marker = self.output / MARKER
        if marker.is_file():
            there = read_json(marker, needs=("dataset",))
            if there != record:
                changed = ", ".join(k for k in record if there.get(k) != record[k])
                raise ValueError(f"{self.output} holds a benchmark of other settings ({changed}): choose another folder with -o")
        elif self.output.exists() and any(self.output.iterdir()):
            raise ValueError(f"{self.output} exists and holds no benchmark: choose another folder with -o")
        if not self.dry_run:
            write_file(marker, json.dumps(record, indent=1) + "\n")

    # --- data and plans

    def prepare(self) -> None:
        if not (self.preprocessed / "dataset_fingerprint.json").is_file():
            self._run("fingerprint", ["nnUNetv2_extract_fingerprint", "-d", self._id, "-np", self._processes])
        command = ["nnUNetv2_plan_experiment", "-d", self._id]
        if self.preset.shortest_side:
            command += ["-overwrite_plans_name", self.base_plans, "-overwrite_target_spacing", *self._target_spacing()]
        if not self._plans_file(self.base_plans).is_file():
            # the planner's threads, which may not be 0
            self._run("plan", command, {"nnUNet_n_proc_DA": self._processes})
        splits = self._splits()
        if splits is None:
            self.say("No splits_final.json beside the data: nnU-Net splits at random, by case and not by patient.")
        elif not self.dry_run:
            write_file(self.preprocessed / "splits_final.json", splits.read_text())
        done = self.preprocessed / f"{self.base_plans}_{self.configuration}.done"
        if not done.is_file():
            self._run("preprocess", ["nnUNetv2_preprocess", "-d", self._id, "-plans_name", self.base_plans, "-c", self.configuration, "-np", self._processes])
            if not self.dry_run:
                done.touch()

    def _target_spacing(self) -> list[str]:
        if self.dry_run and not (self.preprocessed / "dataset_fingerprint.json").is_file():
            return ["SPACING"]
        fingerprint = read_json(self.preprocessed / "dataset_fingerprint.json", needs=("spacings", "shapes_after_crop"))
        spacing = low_resolution_spacing(fingerprint, self.dimensions, self.preset.shortest_side[self.dimensions])
        return [f"{s:.4g}" for s in spacing]

    def _splits(self) -> Path | None:
        places = [self.raw / self.dataset, Path(os.environ.get("nnUNet_preprocessed", self.output)) / self.dataset]
        return next((p / "splits_final.json" for p in places if (p / "splits_final.json").is_file()), None)

    def plans_of(self, seed: int, epochs: int | None = None) -> str:
        """Writes the plans of a seed, with the preset's budget or another number of epochs, and returns their name."""
        name = f"lngswrBenchmarkSeed{seed}" + (f"Epochs{epochs}" if epochs else "")
        if self.dry_run:
            return name
        plans = read_json(self._plans_file(self.base_plans), needs=("configurations",)) | {"plans_name": name}
        if self.configuration not in plans["configurations"]:
            raise ValueError(f"nnU-Net planned no {self.configuration} for {self.dataset}, but {', '.join(plans['configurations'])}")
        entry = {**self.settings, **self.preset.budget, "seed": seed} | ({"num_epochs": epochs} if epochs else {})
        plans["configurations"][self.configuration]["lngswr"] = entry
        if self.preset.batch_size:
            plans["configurations"][self.configuration]["batch_size"] = self.preset.batch_size[self.dimensions]
        write_file(self._plans_file(name), json.dumps(plans, indent=1))
        return name

    # --- one arm

    def train(self, run: Run) -> None:
        fold = self._fold(run)
        if (fold / "validation" / "summary.json").is_file():
            return
        command = ["nnUNetv2_train", self._id, self.configuration, run.fold, "-tr", run.trainer, "-p", run.plans, "-device", self.device]
        if any(fold.glob("checkpoint_*.pth")):
            command.append("--c")
        self._run(f"train_{run.name}", command, show=r"Epoch time|Mean Validation Dice|CATASTROPHIC")

    def evaluate(self, run: Run) -> None:
        folder = self._evaluation(run)
        if (folder / "summary.json").is_file():
            return
        command = ["lngswr", "evaluate", "-m", self._fold(run).parent, "-f", run.fold, "-o", folder, *self.preset.evaluation]
        command += ["-device", self.device, "--disable_progress_bar"]
        # small 2D convolutions gain nothing from threads
        parts = self._cores if self.device == "cpu" and self.dimensions == 2 else 1
        if parts == 1:
            self._run(f"evaluate_{run.name}", command)
            return
        with ThreadPoolExecutor(parts) as pool:
            shares = [[*command, "-num_parts", parts, "-part_id", i] for i in range(parts)]
            list(pool.map(lambda i: self._run(f"evaluate_{run.name}_part{i}", shares[i], {"OMP_NUM_THREADS": "1"}), range(parts)))

    def equal_time_runs(self, runs: Sequence[Run]) -> Iterator[Run]:
        epochs = self.preset.budget["num_epochs"]
        for run in runs:
            ratio = self.epoch_seconds([run]) / self.epoch_seconds([r for r in runs if r.arm == REFERENCE])
            if ratio > TIME_TOLERANCE:
                fewer = max(1, round(epochs / ratio))
                yield Run(f"{run.arm} ({EQUAL_TIME})", run.seed, run.fold, self.plans_of(run.seed, fewer))

    def epoch_seconds(self, runs: Sequence[Run]) -> float:
        """Median over the epochs of all runs, from nnU-Net's training logs."""
        seconds = []
        for run in runs:
            for log in self._fold(run).glob("training_log_*.txt"):
                seconds += [float(s) for s in re.findall(r"Epoch time: ([\d.]+) s", log.read_text())]
        return statistics.median(seconds)

    # --- table

    def write_table(self, runs: Sequence[Run]) -> None:
        from evaluation.compare import compare

        by_arm: dict[str, list[Run]] = {}
        for run in runs:
            by_arm.setdefault(run.arm, []).append(run)
        compared = compare([[self._evaluation(r) for r in of] for of in by_arm.values()], self.output, names=list(by_arm))
        reference = self.epoch_seconds(by_arm[REFERENCE])
        cost = {arm: {"epoch_seconds": self.epoch_seconds(of), "ratio": self.epoch_seconds(of) / reference} for arm, of in by_arm.items()}
        record = {
            "date": date.today().isoformat(),
            "versions": self._versions(),
            "device": self.device,
            "cores": self._cores,
            **read_json(self.output / MARKER, needs=("dataset",)),
            "runs": [dataclasses.asdict(r) for r in runs],
            "cost": cost,
            "results": read_json(self.output / "compare.json", needs=("results",))["results"],
        }
        write_file(self.output / "robustness.json", json.dumps(record, indent=1) + "\n")
        write_file(self.output / "robustness.md", self._markdown(by_arm, cost, cases=compared[0]["cases"]))

    def _markdown(self, by_arm: Mapping[str, Sequence[Run]], cost: Mapping, cases: int) -> str:
        from evaluation.report import markdown_table

        budget = self.preset.budget
        lines = [
            f"# Robustness on {self.dataset}, {self.configuration}",
            "",
            f"Preset {self.preset_name}: {budget['num_epochs']} x {budget['num_iterations_per_epoch']} iterations for every arm, evaluated with "
            f"`{' '.join(self.preset.evaluation)}`; {cases} validation cases. Written {date.today().isoformat()}.",
            "",
            markdown_table(
                ["arm", "trainer", "seeds and folds", "epoch time / vanilla"],
                [[arm, of[0].trainer, ", ".join(f"{r.seed}/{r.fold}" for r in of), f"{cost[arm]['ratio']:.2f}"] for arm, of in by_arm.items()],
            ),
            "",
        ]
        return "\n".join(lines) + (self.output / "compare.md").read_text()

    # --- places and commands

    @property
    def _id(self) -> str:
        return str(int(self.dataset[len("Dataset") :].split("_")[0]))

    @property
    def _cores(self) -> int:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def _processes(self) -> str:
        return str(min(8, self._cores))

    def _plans_file(self, name: str) -> Path:
        return self.preprocessed / f"{name}.json"

    def _fold(self, run: Run) -> Path:
        return self.output / "nnUNet_results" / self.dataset / f"{run.trainer}__{run.plans}__{self.configuration}" / f"fold_{run.fold}"

    def _evaluation(self, run: Run) -> Path:
        return self.output / "evaluations" / run.name

    def _versions(self) -> dict[str, str]:
        from importlib.metadata import version

        return {"nnunetv2_lngswr": __version__, **{p: version(p) for p in ("torch", "nnunetv2")}, "python": platform.python_version()}

    def _run(self, name: str, command: list, environment: Mapping[str, str] | None = None, *, show: str = r"(?!)") -> None:
        if self.dry_run:
            self.say(" ".join(["$", *map(str, command)]))
            return
        folders = {key: str(self.output / key) for key in ("nnUNet_preprocessed", "nnUNet_results")}
        cpu = {"nnUNet_compile": "f"} if self.device == "cpu" else {}
        surroundings = {"nnUNet_raw": str(self.raw), "MPLBACKEND": "Agg", **folders, **cpu, **(environment or {})}
        run_command(command, self.output / "logs" / f"{name}.log", environment=surroundings, say=self.say, show=show)
