"""`lngswr benchmark robustness`: arms trained at one equal budget through nnU-Net and attacked by evaluation.robust, in one table.

nnUNetv2_extract_fingerprint -> nnUNetv2_plan_experiment -> nnUNetv2_preprocess, once; then per seed a copy of the plans with the budget and the
seed, and per seed, fold and arm nnUNetv2_train and lngswr evaluate on the validation cases of the fold; then evaluation.compare over all of
them. On a CPU, 2D runs go side by side, one per core: small convolutions gain nothing from threads. Everything lands below the output folder
with a log per command, nnUNet_raw is only read. Whatever has ended is not repeated, an interrupted training goes on from its last checkpoint,
an interrupted evaluation with its next run: arms, folds and seeds can be added by later calls.
"""

import dataclasses
import json
import os
import platform
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.training.settings import PLANS_KEY, check_entry
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file
from nnunetv2_lngswr.utils.processes import interrupt_running, run_command

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


SMALL = {
    "shortest_side": {2: 128, 3: 34},
    "batch_size": {2: 10, 3: 2},
    "budget": {"num_epochs": 10, "num_iterations_per_epoch": 50, "num_val_iterations_per_epoch": 5},
}

PRESETS = {
    # to choose settings: the training of cpu-small, and of its evaluation what settings are chosen by
    "search": Preset(
        **SMALL,
        evaluation=(
            *("--attacks", "pgd_linf", "--epsilons", "4/255", "8/255", "--shifts", "none"),
            *("--steps", "10", "--max-cases", "40", "--disable_tta"),
        ),
    ),
    # one fold of all arms within two hours on two cores
    "cpu-small": Preset(
        **SMALL,
        evaluation=(
            *(
                "--attacks",
                "noise",
                "pgd_linf",
                "pgd_l2",
                "ssah_project",
                "--epsilons",
                "4/255",
                "8/255",
                "--epsilons-l2",
                "1/255",
                "2/255",
            ),
            *("--steps", "10", "ssah_project=30", "--max-cases", "20", "--disable_tta"),
        ),
    ),
    "gpu": Preset(
        budget={
            "num_epochs": 100,
            "num_iterations_per_epoch": 250,
            "num_val_iterations_per_epoch": 50,
        },
        evaluation=(
            *("--attacks", "noise", "fgsm", "pgd_linf", "pgd_l2", "segpgd", "apgd", "ssah_project"),
            *(
                "--epsilons",
                "1/255",
                "2/255",
                "4/255",
                "8/255",
                "--epsilons-l2",
                "0.25/255",
                "0.5/255",
                "1/255",
                "2/255",
            ),
        ),
    ),
}


@dataclass(frozen=True)
class TrainingRun:
    """One trained model: an arm or variant with its seed and fold. `plans`: the name of its plans."""

    arm: str
    seed: int
    fold: int
    plans: str
    trainer: str

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
    variants: Mapping[str, Mapping] | None = None,
    hold_out: int | None = None,
    attacks: Sequence[str] | None = None,
    max_cases: int | None = None,
    equal_time: bool = False,
    device: str | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Trains and evaluates every arm for every seed and fold, and returns `output`, with robustness.md, robustness.json and the comparison's files.

    `dataset`: nnU-Net's name of a data set in nnUNet_raw. `settings`: a "lngswr" entry for the plans of all arms (the budget is the preset's).
    `variants`: further arms with settings of their own, {name: {"arm": one of ARMS, **"lngswr" entry}}. `hold_out`: a fold whose validation cases
    nothing here trains on or is evaluated on, so that settings can be chosen before that fold is looked at. `attacks`, `max_cases`: instead of
    the preset's. `equal_time`: a second reading, with the arms slower than vanilla trained again for as many epochs as vanilla's time allows.
    `device`: None is cuda where there is one. `dry_run`: say the commands, run nothing. Raises ValueError for unknown arms, a missing data set, an `output` of other settings, a command that fails.
    """
    all_arms = {name: {"arm": name} for name in dict.fromkeys([REFERENCE, *arms])}
    for name, variant in (variants or {}).items():
        if variant == {
            "arm": name
        }:  # as in the "arms" of robustness.json, so that these can be run again
            all_arms[name] = dict(variant)
            continue
        if not re.fullmatch(r"[\w.+-]+", name) or name in ARMS:
            raise UserError(
                f"a variant's name must be made of letters, digits and . + - _, and not be an arm's, got {name!r}"
            )
        if not isinstance(variant, Mapping) or "arm" not in variant:
            raise UserError(
                f'variant {name} must be an object with "arm" and settings, got {variant!r}'
            )
        if len(variant) == 1 and variant["arm"] in ARMS:
            raise UserError(
                f"variant {name} has no settings, so it is the arm {variant['arm']} itself: name that in arms"
            )
        equal = sorted({"seed", *PRESETS["search"].budget} & set(variant))
        if equal:
            raise UserError(
                f"variant {name} must not set {', '.join(equal)}: seed and budget are those of all arms"
            )
        all_arms[name] = dict(variant)
    unknown = [v["arm"] for v in all_arms.values() if v["arm"] not in ARMS]
    if unknown:
        raise UserError(f"unknown arm {', '.join(map(str, unknown))}; arms are {', '.join(ARMS)}")
    for entry in (
        settings or {},
        *({k: v for k, v in arm.items() if k != "arm"} for arm in all_arms.values()),
    ):
        check_entry(entry)
    if hold_out is not None and hold_out in folds:
        raise UserError(f"fold {hold_out} is held out: choose other --folds")
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset}; presets are {', '.join(PRESETS)}")
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    output = Path(output).resolve()
    if max_cases is not None and max_cases < 1:
        raise UserError(f"max_cases must be 1 or more, got {max_cases}")
    plan = dataclasses.replace(
        PRESETS[preset],
        evaluation=evaluation_options(PRESETS[preset].evaluation, attacks, max_cases),
    )
    benchmark = _Benchmark(
        output,
        dataset,
        configuration,
        preset,
        plan,
        dict(settings or {}),
        hold_out,
        device,
        dry_run,
        say,
    )
    benchmark.claim()
    benchmark.prepare()
    runs = [
        benchmark.plan_run(name, variant, seed, fold)
        for seed in seeds
        for fold in folds
        for name, variant in all_arms.items()
    ]
    benchmark.do(runs)
    if equal_time and not dry_run:
        again = list(benchmark.equal_time_runs(runs, all_arms))
        benchmark.do(again)
        runs += again
    if not dry_run:
        benchmark.write_table(runs, all_arms)
    return output


def evaluation_options(
    options: Sequence[str], attacks: Sequence[str] | None, max_cases: int | None
) -> tuple[str, ...]:
    """`options` of lngswr evaluate with other attacks, or another number of cases. Raises ValueError for unknown attacks."""
    options = list(options)
    if attacks is not None:
        from evaluation.protocol import Options, check_names

        check_names(Options(attacks=tuple(attacks)))
        # steps may be given for attacks that are run only
        options = [
            o for o in options if not re.fullmatch(r"\w+=\d+", o) or o.split("=")[0] in attacks
        ]
        options = _with_option(options, "--attacks", *attacks)
    if max_cases is not None:
        options = _with_option(options, "--max-cases", str(max_cases))
    return tuple(options)


def _with_option(options: Sequence[str], name: str, *values: str) -> list[str]:
    start = options.index(name) if name in options else len(options)
    end = next((i for i, o in enumerate(options) if i > start and o.startswith("--")), len(options))
    return [*options[:start], name, *values, *options[end:]]


def low_resolution_spacing(
    fingerprint: Mapping, dimensions: int, shortest_side: int
) -> list[float]:
    """Target spacing, in the order of the files, at which the median case has `shortest_side` voxels along the shortest of its finest axes
    (2D: two, 3D: three). Axes coarser than that keep their spacing, and nothing is made finer."""
    spacing = [statistics.median(s[a] for s in fingerprint["spacings"]) for a in range(3)]
    shape = [statistics.median(s[a] for s in fingerprint["shapes_after_crop"]) for a in range(3)]
    finest = sorted(range(3), key=lambda a: (spacing[a], -shape[a]))[:dimensions]
    extent = min(shape[a] * spacing[a] for a in finest)
    return [
        float(max(s, extent / shortest_side)) if shape[a] > 1 else float(s)
        for a, s in enumerate(spacing)
    ]


class _Benchmark:
    def __init__(
        self,
        output: Path,
        dataset: str,
        configuration: str,
        preset_name: str,
        preset: Preset,
        settings: dict,
        hold_out: int | None,
        device: str,
        dry_run: bool,
        say,
    ):
        self.output, self.dataset, self.configuration, self.settings = (
            output,
            dataset,
            configuration,
            settings,
        )
        self.preset_name, self.preset, self.hold_out = preset_name, preset, hold_out
        self.device, self.dry_run, self.say = device, dry_run, say
        self.dimensions = 2 if configuration == "2d" else 3
        raw = os.environ.get("nnUNet_raw")
        if raw is None or not (Path(raw) / dataset / "dataset.json").is_file():
            raise UserError(
                f"no data set {dataset} in nnUNet_raw ({raw or 'not set'}): give its full name, such as Dataset611_ThyroidUS"
            )
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
            "hold_out": self.hold_out,
        }
        record = json.loads(json.dumps(record))
        marker = self.output / MARKER
        if marker.is_file():
            there = read_json(marker, needs=("dataset",))
            changed = ", ".join(k for k in record if there.get(k) != record[k])
            if changed:
                raise UserError(
                    f"{self.output} holds a benchmark of other settings ({changed}): choose another folder with -o"
                )
        elif self.output.exists() and any(self.output.iterdir()):
            raise UserError(
                f"{self.output} exists and holds no benchmark: choose another folder with -o"
            )
        if not self.dry_run:
            write_file(marker, json.dumps(record, indent=1) + "\n")

    # --- data and plans

    def prepare(self) -> None:
        if not (self.preprocessed / "dataset_fingerprint.json").is_file():
            self._run(
                "fingerprint",
                ["nnUNetv2_extract_fingerprint", "-d", self._id, "-np", self._processes],
            )
        command = ["nnUNetv2_plan_experiment", "-d", self._id]
        if self.preset.shortest_side:
            command += [
                "-overwrite_plans_name",
                self.base_plans,
                "-overwrite_target_spacing",
                *self._target_spacing(),
            ]
        if not self._plans_file(self.base_plans).is_file():
            # the planner's threads, which may not be 0
            self._run("plan", command, {"nnUNet_n_proc_DA": self._processes})
        splits = self._splits()
        if splits is None:
            self.say(
                "No splits_final.json beside the data: nnU-Net splits at random, by case and not by patient."
            )
        elif not self.dry_run:
            write_file(
                self.preprocessed / "splits_final.json",
                json.dumps(self._without_held_out(json.loads(splits.read_text())), indent=1),
            )
        if splits is None and self.hold_out is not None:
            raise UserError(
                f"to hold fold {self.hold_out} out, a splits_final.json beside the data is needed"
            )
        done = self.preprocessed / f"{self.base_plans}_{self.configuration}.done"
        if not done.is_file():
            self._run(
                "preprocess",
                [
                    "nnUNetv2_preprocess",
                    "-d",
                    self._id,
                    "-plans_name",
                    self.base_plans,
                    "-c",
                    self.configuration,
                    "-np",
                    self._processes,
                ],
            )
            if not self.dry_run:
                done.touch()

    def _target_spacing(self) -> list[str]:
        if self.dry_run and not (self.preprocessed / "dataset_fingerprint.json").is_file():
            return ["SPACING"]
        fingerprint = read_json(
            self.preprocessed / "dataset_fingerprint.json", needs=("spacings", "shapes_after_crop")
        )
        spacing = low_resolution_spacing(
            fingerprint, self.dimensions, self.preset.shortest_side[self.dimensions]
        )
        return [f"{s:.4g}" for s in spacing]

    def _splits(self) -> Path | None:
        places = [
            self.raw / self.dataset,
            Path(os.environ.get("nnUNet_preprocessed", self.output)) / self.dataset,
        ]
        return next(
            (p / "splits_final.json" for p in places if (p / "splits_final.json").is_file()), None
        )

    def _without_held_out(self, splits: list[dict]) -> list[dict]:
        if self.hold_out is None:
            return splits
        if not 0 <= self.hold_out < len(splits):
            raise UserError(
                f"fold {self.hold_out} cannot be held out: there are folds 0 to {len(splits) - 1}"
            )
        held_out = set(splits[self.hold_out]["val"])
        return [
            {part: [c for c in fold[part] if c not in held_out] for part in ("train", "val")}
            for fold in splits
        ]

    def plan_run(
        self, name: str, variant: Mapping, seed: int, fold: int, epochs: int | None = None
    ) -> TrainingRun:
        """One run of an arm, with the preset's budget or another number of epochs; writes the plans it needs."""
        settings = {k: v for k, v in variant.items() if k != "arm"}
        plans = self._plans_of(seed, epochs, name if settings else None, settings)
        return TrainingRun(
            name + (f" ({EQUAL_TIME})" if epochs else ""), seed, fold, plans, ARMS[variant["arm"]]
        )

    def _plans_of(
        self, seed: int, epochs: int | None, variant: str | None, settings: Mapping
    ) -> str:
        name = (
            f"lngswrBenchmarkSeed{seed}"
            + (f"Epochs{epochs}" if epochs else "")
            + (f"_{variant}" if variant else "")
        )
        if self.dry_run:
            return name
        plans = read_json(self._plans_file(self.base_plans), needs=("configurations",)) | {
            "plans_name": name
        }
        if self.configuration not in plans["configurations"]:
            raise UserError(
                f"nnU-Net planned no {self.configuration} for {self.dataset}, but {', '.join(plans['configurations'])}"
            )
        entry = {**self.settings, **self.preset.budget, "seed": seed, **settings} | (
            {"num_epochs": epochs} if epochs else {}
        )
        plans["configurations"][self.configuration][PLANS_KEY] = entry
        if self.preset.batch_size:
            plans["configurations"][self.configuration]["batch_size"] = self.preset.batch_size[
                self.dimensions
            ]
        text = json.dumps(plans, indent=1)
        file = self._plans_file(name)
        if variant and file.is_file() and file.read_text() != text:
            raise UserError(
                f"variant {variant} has other settings than before ({file}): give it another name"
            )
        write_file(file, text)
        return name

    # --- runs

    def do(self, runs: Sequence[TrainingRun]) -> None:
        """Trains and evaluates; the first failure, or Ctrl-C, starts no further run."""

        def one(run: TrainingRun) -> None:
            self.train(run)
            self.evaluate(run)

        with ThreadPoolExecutor(1 if self.dry_run else self._side_by_side) as pool:
            try:
                for done in as_completed([pool.submit(one, run) for run in runs]):
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                interrupt_running()
                raise

    @property
    def _side_by_side(self) -> int:
        return self._cores if self.device == "cpu" and self.dimensions == 2 else 1

    def train(self, run: TrainingRun) -> None:
        fold = self._fold(run)
        if (fold / "validation" / "summary.json").is_file():
            return
        command = [
            "nnUNetv2_train",
            self._id,
            self.configuration,
            run.fold,
            "-tr",
            run.trainer,
            "-p",
            run.plans,
            "-device",
            self.device,
        ]
        if any(fold.glob("checkpoint_*.pth")):
            command.append("--c")
        self._run(
            f"train_{run.name}", command, show=r"Epoch time|Mean Validation Dice|CATASTROPHIC"
        )

    def evaluate(self, run: TrainingRun) -> None:
        folder = self._evaluation(run)
        if (folder / "summary.json").is_file():
            return
        command = [
            "lngswr",
            "evaluate",
            "-m",
            self._fold(run).parent,
            "-f",
            run.fold,
            "-o",
            folder,
            *self.preset.evaluation,
        ]
        command += ["-device", self.device, "--disable_progress_bar"]
        self._run(f"evaluate_{run.name}", command)

    def equal_time_runs(
        self, runs: Sequence[TrainingRun], arms: Mapping[str, Mapping]
    ) -> Iterator[TrainingRun]:
        """All runs of each arm that is slower than the reference, for as many epochs as the reference's time allows: an arm is read as a whole."""
        epochs = self.preset.budget["num_epochs"]
        reference = self.epoch_seconds([r for r in runs if r.arm == REFERENCE])
        for arm in dict.fromkeys(r.arm for r in runs if r.arm != REFERENCE):
            of = [r for r in runs if r.arm == arm]
            ratio = self.epoch_seconds(of) / reference
            if ratio > TIME_TOLERANCE:
                for run in of:
                    yield self.plan_run(
                        arm, arms[arm], run.seed, run.fold, max(1, round(epochs / ratio))
                    )

    def epoch_seconds(self, runs: Sequence[TrainingRun]) -> float:
        """Median over the epochs of all runs, from nnU-Net's training logs."""
        seconds = []
        for run in runs:
            for log in self._fold(run).glob("training_log_*.txt"):
                seconds += [
                    float(s) for s in re.findall(r"Epoch time: ([\d.]+) s", log.read_text())
                ]
        return statistics.median(seconds)

    # --- table

    def write_table(self, runs: Sequence[TrainingRun], arms: Mapping[str, Mapping]) -> None:
        from evaluation.compare import compare

        by_arm: dict[str, list[TrainingRun]] = {}
        for run in runs:
            by_arm.setdefault(run.arm, []).append(run)
        compared = compare(
            [[self._evaluation(r) for r in of] for of in by_arm.values()],
            self.output,
            names=list(by_arm),
        )
        reference = self.epoch_seconds(by_arm[REFERENCE])
        cost = {
            arm: {
                "epoch_seconds": self.epoch_seconds(of),
                "ratio": self.epoch_seconds(of) / reference,
            }
            for arm, of in by_arm.items()
        }
        record = {
            "date": date.today().isoformat(),
            "versions": self._versions(),
            "device": self.device,
            "cores": self._cores,
            **read_json(self.output / MARKER, needs=("dataset",)),
            "arms": arms,
            "runs": [
                dataclasses.asdict(r)
                | {"settings": self._trained_settings(r), "dice": self._dice(r)}
                for r in runs
            ],
            "cost": cost,
            "results": read_json(self.output / "compare.json", needs=("results",))["results"],
        }
        write_file(self.output / "robustness.json", json.dumps(record, indent=1) + "\n")
        write_file(
            self.output / "robustness.md", self._markdown(by_arm, cost, cases=compared[0]["cases"])
        )

    def _trained_settings(self, run: TrainingRun) -> dict:
        """The run's "lngswr" entry as its trainer wrote it out, defaults of that day included."""
        plans = read_json(self._fold(run).parent / "plans.json", needs=("configurations",))
        return plans["configurations"][self.configuration][PLANS_KEY]

    def _dice(self, run: TrainingRun) -> dict[str, float]:
        """Mean Dice of one run: clean, worst_linf and worst_l2 per budget, all shifts. How far they lie apart within an arm is what training
        again changes, which the intervals over cases leave out."""
        results = read_json(self._evaluation(run) / "summary.json", needs=("results",))["results"]
        return {
            " ".join(filter(None, (r["attack"], r["epsilon_text"]))): r["dice"]
            for r in results
            if r["kind"] in ("clean", "worst", "shifts_mean")
        }

    def _markdown(
        self, by_arm: Mapping[str, Sequence[TrainingRun]], cost: Mapping, cases: int
    ) -> str:
        from evaluation.report.markdown import markdown_table

        budget = self.preset.budget
        dice = [(r, self._dice(r)) for of in by_arm.values() for r in of]
        lines = [
            f"# Robustness on {self.dataset}, {self.configuration}",
            "",
            f"Preset {self.preset_name}: {budget['num_epochs']} x {budget['num_iterations_per_epoch']} iterations for every arm, evaluated with "
            f"`{' '.join(self.preset.evaluation)}`; {cases} validation cases. Written {date.today().isoformat()}.",
            "",
            markdown_table(
                ["arm", "trainer", "seeds and folds", "epoch time / vanilla"],
                [
                    [
                        arm,
                        of[0].trainer,
                        ", ".join(f"{r.seed}/{r.fold}" for r in of),
                        f"{cost[arm]['ratio']:.2f}",
                    ]
                    for arm, of in by_arm.items()
                ],
            ),
            "",
            "Dice in percent of each training by itself; the intervals further down are over cases and do not cover training again:",
            "",
            markdown_table(
                ["arm", "seed/fold", *dice[0][1]],
                [
                    [r.arm, f"{r.seed}/{r.fold}", *(f"{100 * d:.1f}" for d in its.values())]
                    for r, its in dice
                ],
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
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )

    @property
    def _processes(self) -> str:
        return str(min(8, self._cores))

    def _plans_file(self, name: str) -> Path:
        return self.preprocessed / f"{name}.json"

    def _fold(self, run: TrainingRun) -> Path:
        return (
            self.output
            / "nnUNet_results"
            / self.dataset
            / f"{run.trainer}__{run.plans}__{self.configuration}"
            / f"fold_{run.fold}"
        )

    def _evaluation(self, run: TrainingRun) -> Path:
        # by what was trained, not by the arm's name: an arm may come to mean other plans
        return (
            self.output
            / "evaluations"
            / f"{run.trainer}__{run.plans}__{self.configuration}__fold_{run.fold}"
        )

    def _versions(self) -> dict[str, str]:
        from importlib.metadata import version

        return {
            "nnunetv2_lngswr": __version__,
            **{p: version(p) for p in ("torch", "nnunetv2")},
            "python": platform.python_version(),
        }

    def _run(
        self,
        name: str,
        command: list,
        environment: Mapping[str, str] | None = None,
        *,
        show: str = r"(?!)",
    ) -> None:
        if self.dry_run:
            self.say(" ".join(["$", *map(str, command)]))
            return
        folders = {key: str(self.output / key) for key in ("nnUNet_preprocessed", "nnUNet_results")}
        cpu = {"nnUNet_compile": "f"} if self.device == "cpu" else {}
        if self._side_by_side > 1:
            # nnUNetv2_train sets as many threads as there are cores whatever this says, so several of them share the cores. Threads that
            # spin while they wait take these from those that work: a train step took 1.5 to 3 times as long (libgomp, two cores).
            cpu |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        surroundings = {
            "nnUNet_raw": str(self.raw),
            "MPLBACKEND": "Agg",
            **folders,
            **cpu,
            **(environment or {}),
        }
        run_command(
            command,
            self.output / "logs" / f"{name}.log",
            environment=surroundings,
            say=self.say,
            show=show,
        )
