"""`lngswr benchmark robustness`: its commands, what it repeats and refuses, and once for real on phantoms."""

import dataclasses
import json
import statistics
import threading
import time
from pathlib import Path

import pytest

from evaluation import robust
from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets.phantom import PHANTOM_SETS, write_phantom
from nnunetv2_lngswr.experiments import robustness as benchmark
from nnunetv2_lngswr.experiments.robustness import (
    ARMS,
    PRESETS,
    Preset,
    TrainingRun,
    benchmark_robustness,
    evaluation_options,
    low_resolution_spacing,
)

DATASET = PHANTOM_SETS["2d"].dataset_name
TINY = Preset(
    batch_size={2: 2},
    budget={"num_epochs": 2, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1},
    evaluation=(
        "--attacks",
        "noise",
        "pgd_linf",
        "--epsilons",
        "8/255",
        "--steps",
        "1",
        "--shifts",
        "gamma",
        "--max-cases",
        "2",
        "--disable_tta",
    ),
)


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A phantom data set in nnUNet_raw."""
    folder = tmp_path / "nnUNet_raw"
    write_phantom("2d", folder)
    monkeypatch.setenv("nnUNet_raw", str(folder))
    monkeypatch.setitem(benchmark.PRESETS, "tiny", TINY)
    return folder


@pytest.mark.parametrize(
    ("spacing", "shape", "dimensions", "side", "expected"),
    [
        ((999, 1, 1), (1, 360, 500), 2, 120, (999, 3, 3)),  # a picture
        ((999, 0.5, 0.5), (1, 200, 100), 2, 100, (999, 0.5, 0.5)),  # nothing is made finer
        ((5, 1, 1), (20, 400, 300), 2, 100, (5, 3, 3)),  # the coarse axis is left alone
        ((1, 1, 1), (51, 51, 60), 3, 34, (1.5, 1.5, 1.5)),
        ((4, 1, 1), (20, 160, 160), 3, 40, (4, 2, 2)),  # 80 mm along the shortest
    ],
)
def test_low_resolution_keeps_so_many_voxels_of_the_shortest_axis(
    spacing, shape, dimensions, side, expected
):
    fingerprint = {"spacings": [spacing] * 3, "shapes_after_crop": [shape] * 3}
    assert low_resolution_spacing(fingerprint, dimensions, side) == pytest.approx(expected)


def test_other_attacks_and_cases_take_the_place_of_the_presets():
    options = evaluation_options(
        ("--attacks", "noise", "ssah_project", "--steps", "10", "ssah_project=30", "--disable_tta"),
        ["fgsm"],
        7,
    )
    assert options == ("--attacks", "fgsm", "--steps", "10", "--disable_tta", "--max-cases", "7")
    assert evaluation_options(options, ["noise", "fgsm"], 8)[-4:] == (
        "10",
        "--disable_tta",
        "--max-cases",
        "8",
    )


def test_a_dry_run_says_the_commands_and_writes_nothing(raw, tmp_path, capsys):
    assert (
        cli.main(
            [
                "benchmark",
                "robustness",
                "-d",
                DATASET,
                "-c",
                "2d",
                "-o",
                str(tmp_path / "out"),
                "--folds",
                "0",
                "2",
                "--dry-run",
            ]
        )
        == 0
    )
    commands = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("$ ")
    ]
    trained = [(c[c.index("-tr") + 1], c[4]) for c in commands if c[1] == "nnUNetv2_train"]
    assert trained == [(t, f) for f in ("0", "2") for t in ARMS.values()]
    assert [c[1] for c in commands[:3]] == [
        "nnUNetv2_extract_fingerprint",
        "nnUNetv2_plan_experiment",
        "nnUNetv2_preprocess",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", DATASET, "--arms", "LNGSWRR"], "unknown arm LNGSWRR; arms are vanilla, DA5"),
        (["-d", DATASET, "--preset", "big"], "unknown preset big"),
        (["-d", "Dataset999_None"], "no data set Dataset999_None"),
        (["-d", DATASET, "--settings", "{"], "--settings must be JSON"),
        (["-d", DATASET, "--settings", '{"noise_sigma": 1}'], 'unknown key "noise_sigma"'),
        (["-d", DATASET, "--hold-out", "0"], "fold 0 is held out"),
        (["-d", DATASET, "--max-cases", "0"], "max_cases must be 1 or more"),
        (["-d", DATASET, "--attacks", "pgd_linf", "pgdl2"], "pgdl2"),
        (["-d", DATASET, "--variants", "missing.json"], "missing.json"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(raw, tmp_path, capsys, arguments, message):
    assert (
        cli.main(["benchmark", "robustness", "-c", "2d", "-o", str(tmp_path / "out"), *arguments])
        == 2
    )
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ('{"mild": {"arm": "LNGSWR", "noise_sigma": 1}}', 'unknown key "noise_sigma"'),
        ('{"mild": {"arm": "LNGSWR", "gate_init": 2}}', "gate_init must be a number in"),
        ('{"mild": {"arm": "LNG-SWR"}}', "unknown arm LNG-SWR"),
        ('{"mild": {"start": 1}}', 'variant mild must be an object with "arm"'),
        (
            '{"again": {"arm": "vanilla"}}',
            "variant again has no settings, so it is the arm vanilla itself",
        ),
        (
            '{"long": {"arm": "LNGSWR", "seed": 7, "num_epochs": 30}}',
            "variant long must not set num_epochs, seed",
        ),
        ('{"AT": {"arm": "LNGSWRAT"}}', "not be an arm's"),
        ('{"../mild": {"arm": "AT"}}', "made of letters"),
    ],
)
def test_bad_variants_are_named(raw, tmp_path, capsys, variants, message):
    file = tmp_path / "variants.json"
    file.write_text(variants)
    assert (
        cli.main(
            [
                "benchmark",
                "robustness",
                "-d",
                DATASET,
                "-c",
                "2d",
                "-o",
                str(tmp_path / "out"),
                "--variants",
                str(file),
            ]
        )
        == 2
    )
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.fixture
def commands(monkeypatch):
    """What would be run; nnU-Net's planner leaves plans."""
    ran = []

    def run(command, log, *, environment, say, show=""):
        command = [str(c) for c in command]
        ran.append((command, dict(environment)))
        if command[0] == "nnUNetv2_plan_experiment":
            folder = Path(environment["nnUNet_preprocessed"]) / DATASET
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "nnUNetPlans.json").write_text(
                json.dumps({"configurations": {"2d": {"batch_size": 12}}})
            )

    monkeypatch.setattr(benchmark, "run_command", run)
    monkeypatch.setattr(benchmark._Benchmark, "write_table", lambda self, runs, arms: None)
    return ran


def test_variants_are_arms_with_settings_of_their_own(raw, tmp_path, commands):
    # an arm itself too, as in the "arms" of a robustness.json
    variants = {
        "LNGSWR": {"arm": "LNGSWR"},
        "mild": {"arm": "LNGSWR", "noise_sigma_input": 0.5, "adversarial": {"epsilon": "2/255"}},
    }
    out = benchmark_robustness(
        DATASET,
        "2d",
        tmp_path / "out",
        arms=[],
        preset="tiny",
        variants=variants,
        settings={"start": 0.5},
        max_cases=7,
    )
    trained = {
        (c[c.index("-p") + 1], c[c.index("-tr") + 1])
        for c, _ in commands
        if c[0] == "nnUNetv2_train"
    }
    plans, mild = "lngswrBenchmarkSeed0", "lngswrBenchmarkSeed0_mild"
    assert trained == {
        (plans, "nnUNetTrainerVanilla"),
        (plans, "nnUNetTrainerLNGSWR"),
        (mild, "nnUNetTrainerLNGSWR"),
    }
    entries = [
        json.loads((out / "nnUNet_preprocessed" / DATASET / f"{p}.json").read_text())[
            "configurations"
        ]["2d"]["lngswr"]
        for p in (plans, mild)
    ]
    common = {"start": 0.5, **TINY.budget, "seed": 0}
    assert entries == [
        common,
        common | {"noise_sigma_input": 0.5, "adversarial": {"epsilon": "2/255"}},
    ]
    assert {c[c.index("--max-cases") + 1] for c, _ in commands if c[0] == "lngswr"} == {"7"}
    assert sum(c[0] == "lngswr" for c, _ in commands) == 3
    with pytest.raises(ValueError, match="variant mild has other settings than before"):
        benchmark_robustness(
            DATASET,
            "2d",
            out,
            arms=[],
            preset="tiny",
            variants={"mild": {"arm": "LNGSWR", "start": 0.0}},
            settings={"start": 0.5},
            max_cases=7,
        )


def test_other_attacks_replace_those_of_the_preset_with_their_steps(
    raw, tmp_path, commands, monkeypatch
):
    assert "ssah_project=30" in PRESETS["cpu-small"].evaluation
    monkeypatch.setitem(
        PRESETS, "tiny", dataclasses.replace(TINY, evaluation=PRESETS["cpu-small"].evaluation)
    )
    benchmark_robustness(
        DATASET,
        "2d",
        tmp_path / "out",
        arms=[],
        preset="tiny",
        attacks=["pgd_l2", "fgsm"],
        max_cases=3,
    )
    (command,) = (c for c, _ in commands if c[0] == "lngswr")
    options = vars(robust._parser().parse_args(command[2:]))
    assert (options["attacks"], options["steps"], options["max_cases"]) == (
        ["pgd_l2", "fgsm"],
        ["10"],
        3,
    )


def test_the_cases_of_a_held_out_fold_are_neither_trained_on_nor_attacked(raw, tmp_path, commands):
    out = benchmark_robustness(
        DATASET, "2d", tmp_path / "out", arms=[], preset="tiny", hold_out=1, folds=[0]
    )
    given = json.loads((raw / DATASET / "splits_final.json").read_text())
    used = json.loads((out / "nnUNet_preprocessed" / DATASET / "splits_final.json").read_text())
    held_out = set(given[1]["val"])
    assert held_out and used[0]["val"] == given[0]["val"]
    assert sorted(used[0]["train"]) == sorted(set(given[0]["train"]) - held_out) != []
    with pytest.raises(ValueError, match=r"other settings \(hold_out\)"):
        benchmark_robustness(DATASET, "2d", out, arms=[], preset="tiny")
    with pytest.raises(ValueError, match="fold 99 cannot be held out"):
        benchmark_robustness(DATASET, "2d", tmp_path / "out2", arms=[], preset="tiny", hold_out=99)


@pytest.mark.parametrize(
    ("configuration", "device", "most"),
    [("2d", "cpu", 3), ("2d", "cuda", 1), ("3d_fullres", "cpu", 1)],
)
def test_2d_runs_go_side_by_side_on_a_cpu_and_a_failure_starts_no_more(
    raw, tmp_path, monkeypatch, configuration, device, most
):
    monkeypatch.setattr(benchmark._Benchmark, "_cores", 3)
    lock, now, peak, started = threading.Lock(), [0], [0], []

    def run(self, name, command, *, show=""):
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
            started.append(name)
        time.sleep(0.1)
        with lock:
            now[0] -= 1
        if name.endswith("fold5"):
            raise ValueError("training failed")

    monkeypatch.setattr(benchmark._Benchmark, "_run", run)
    its = benchmark._Benchmark(
        tmp_path, DATASET, configuration, "tiny", TINY, {}, None, device, False, print
    )
    runs = [TrainingRun("vanilla", 0, fold, "p", "nnUNetTrainerVanilla") for fold in range(12)]
    with pytest.raises(ValueError, match="training failed"):
        its.do(runs)
    assert (
        peak[0] == most
        and "train_vanilla_seed0_fold5" in started
        and "train_vanilla_seed0_fold11" not in started
    )


def test_equal_time_is_decided_for_an_arm_as_a_whole_and_never_for_the_reference(
    raw, tmp_path, monkeypatch
):
    seconds = {
        ("vanilla", 0): [10, 10],
        ("vanilla", 1): [7, 7],
        ("LNGSWR", 0): [20, 20],
        ("LNGSWR", 1): [7, 12],
        ("SWR", 0): [8, 9],
        ("SWR", 1): [8, 8],
    }
    its = benchmark._Benchmark(
        tmp_path,
        DATASET,
        "2d",
        "tiny",
        benchmark.PRESETS["cpu-small"],
        {},
        None,
        "cpu",
        True,
        print,
    )
    monkeypatch.setattr(
        its,
        "epoch_seconds",
        lambda runs: statistics.median(s for r in runs for s in seconds[r.arm, r.seed]),
    )
    arms = {name: {"arm": name} for name in ("vanilla", "LNGSWR", "SWR")}
    runs = [its.plan_run(arm, arms[arm], seed, 0) for seed in (0, 1) for arm in arms]
    again = list(its.equal_time_runs(runs, arms))
    # medians: 8.5, 16 and 8
    assert [(r.arm, r.seed, r.plans) for r in again] == [
        ("LNGSWR (same time)", s, f"lngswrBenchmarkSeed{s}Epochs5") for s in (0, 1)
    ]


def test_an_evaluation_belongs_to_what_was_trained(raw, tmp_path):
    its = benchmark._Benchmark(tmp_path, DATASET, "2d", "tiny", TINY, {}, None, "cpu", True, print)
    runs = [
        its.plan_run("mild", {"arm": arm, "start": 0.5}, 0, 0, epochs)
        for arm in ("LNGSWR", "LNG")
        for epochs in (None, 7, 8)
    ]
    assert len({its._evaluation(r) for r in runs}) == len(runs)


@pytest.mark.parametrize(("configuration", "policy"), [("2d", "passive"), ("3d_fullres", None)])
def test_runs_that_share_the_cores_do_not_spin_while_they_wait(
    raw, tmp_path, monkeypatch, configuration, policy
):
    surroundings = {}
    monkeypatch.setattr(
        benchmark,
        "run_command",
        lambda command, log, environment, **options: surroundings.update(environment),
    )
    monkeypatch.setattr(benchmark._Benchmark, "_cores", 2)
    benchmark._Benchmark(
        tmp_path, DATASET, configuration, "tiny", TINY, {}, None, "cpu", False, print
    )._run("train", ["true"])
    assert surroundings["nnUNet_raw"] == str(raw) and surroundings.get("OMP_WAIT_POLICY") == policy


def test_ctrl_c_ends_the_commands_of_all_threads(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark._Benchmark, "_cores", 2)
    started = []

    def train(self, run):
        started.append(tmp_path / f"{run.name}.on")
        command = [
            "python",
            "-c",
            f"import pathlib, time; pathlib.Path({str(started[-1])!r}).touch(); time.sleep(60)",
        ]
        benchmark.run_command(
            command, tmp_path / f"{run.name}.log", environment={}, say=lambda line: None
        )

    def interrupt(futures):
        while len(started) < 2 or not all(on.is_file() for on in started):
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark._Benchmark, "train", train)
    monkeypatch.setattr(benchmark, "as_completed", interrupt)
    its = benchmark._Benchmark(tmp_path, DATASET, "2d", "tiny", TINY, {}, None, "cpu", False, print)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        its.do([TrainingRun("vanilla", 0, fold, "p", "nnUNetTrainerVanilla") for fold in range(6)])
    assert time.monotonic() - before < 30 and len(started) == 2


def test_a_folder_of_something_else_or_of_other_settings_is_refused(raw, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "run_command", stop)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no benchmark"):
        benchmark_robustness(DATASET, "2d", tmp_path / "full", preset="tiny")
    with pytest.raises(KeyboardInterrupt):
        benchmark_robustness(DATASET, "2d", tmp_path / "out", preset="tiny")
    with pytest.raises(ValueError, match=r"other settings \(settings\)"):
        benchmark_robustness(
            DATASET, "2d", tmp_path / "out", preset="tiny", settings={"noise_sigma_input": 0.1}
        )


@pytest.mark.slow
def test_arms_are_trained_attacked_compared_and_never_twice(raw, tmp_path, monkeypatch):
    from nnunetv2_lngswr.installation.register import trainers_are_found

    if not trainers_are_found():
        pytest.skip("nnU-Net's commands do not find the trainers here: lngswr register")
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    said = []
    out = benchmark_robustness(
        DATASET,
        "2d",
        tmp_path / "out",
        arms=["LNGSWR"],
        preset="tiny",
        equal_time=True,
        say=said.append,
    )
    record = json.loads((out / "robustness.json").read_text())
    arms = {r["arm"] for r in record["runs"]}
    assert record["arms"] == {"vanilla": {"arm": "vanilla"}, "LNGSWR": {"arm": "LNGSWR"}}
    assert {"vanilla", "LNGSWR"} <= arms <= {"vanilla", "LNGSWR", "LNGSWR (same time)"}
    assert (
        set(record["cost"]) == arms == {r["model"] for r in record["results"]}
        and record["cost"]["vanilla"]["ratio"] == 1
    )
    splits = json.loads((raw / DATASET / "splits_final.json").read_text())
    assert (
        json.loads((out / "nnUNet_preprocessed" / DATASET / "splits_final.json").read_text())
        == splits
    )
    evaluated = json.loads(
        (
            out
            / "evaluations"
            / "nnUNetTrainerVanilla__lngswrBenchmarkSeed0__2d__fold_0"
            / "summary.json"
        ).read_text()
    )["cases"]
    assert len(evaluated) == 2 and {c.split(".")[0] for c in evaluated} <= set(splits[0]["val"])
    for run in record["runs"]:
        trainer, plans = ARMS[run["arm"].split(" ")[0]], run["plans"]
        written = json.loads(
            (
                out / "nnUNet_results" / DATASET / f"{trainer}__{plans}__2d" / "plans.json"
            ).read_text()
        )
        entry = written["configurations"]["2d"]["lngswr"]
        assert entry["seed"] == 0 and entry["num_iterations_per_epoch"] == 2
        assert entry["num_epochs"] == 2 if "same" not in run["arm"] else entry["num_epochs"] < 2
        assert run["settings"] == entry and ("noise_ramp_up" in entry) == ("LNGSWR" in run["arm"])
    alone = [r for r in record["results"] if r["model"] == "vanilla"]
    for name, dice in next(r["dice"] for r in record["runs"] if r["arm"] == "vanilla").items():
        assert [dice] == pytest.approx(
            [r["dice"] for r in alone if f"{r['attack']} {r['epsilon_text']}".strip() == name]
        )
    assert {"clean", "worst_linf 8/255"} <= set(record["runs"][0]["dice"])
    assert (
        "epoch time / vanilla" in (out / "robustness.md").read_text()
        and (out / "compare.png").is_file()
    )
    # nothing of that is done again, another seed is added
    before, count = time.time(), sum(s.startswith("$ ") for s in said)
    said.clear()
    benchmark_robustness(DATASET, "2d", out, arms=["LNGSWR"], preset="tiny", say=said.append)
    assert not [s for s in said if s.startswith("$ ")] and count >= 7
    assert all(p.stat().st_mtime < before for p in (out / "nnUNet_results").rglob("*.pth"))
