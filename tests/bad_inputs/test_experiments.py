"""`lngswr benchmark`, `paper` and `demo`: bad arguments and data, found before anything runs."""

import json

import pytest

from nnunetv2_lngswr.cli.main import main
from nnunetv2_lngswr.experiments.demo.chain import Chain
from nnunetv2_lngswr.experiments.paper import run as paper_run
from nnunetv2_lngswr.installation import register
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import bad, rows
from tests.bad_inputs.worlds import NAME

FOLDERS = {f"nnUNet_{n}": f"ROOT/nnUNet_{n}" for n in ("raw", "preprocessed", "results")}
RAW = f"nnUNet_raw/{NAME}"
SPLITS, PLANS = f"{RAW}/splits_final.json", f"nnUNet_preprocessed/{NAME}/nnUNetPlans.json"

WITHOUT_SPLITS = spoil.both(
    spoil.remove(SPLITS), *(spoil.write(f"{RAW}/imagesTr/c{i}_0000.nii.gz", "") for i in range(6))
)


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """What is not refused must not train."""

    def ran(*words, **options):
        raise AssertionError("it was not refused, but ran")

    monkeypatch.setattr(register, "trainers_are_found", lambda: True)
    monkeypatch.setattr(Chain, "run", ran)
    monkeypatch.setattr(paper_run, "call_command", ran)


def benchmark(*words: str) -> tuple[str, ...]:
    what = ("-d", NAME, "-c", "2d", "-o", "ROOT/out", "--dry-run")
    return ("benchmark", "robustness", *what, *words)


def robust(name: str, words, *says: str, change=spoil.both(), environ=FOLDERS):
    return bad(name, benchmark(*words), *says, spoil=change, environ=environ)


def settings(name: str, text: str, *says: str):
    return robust(f"settings {name}", ("--settings", text), *says)


def variants(name: str, content: str, *says: str):
    change = spoil.write("v.json", content)
    return robust(f"variants {name}", ("--variants", "ROOT/v.json"), *says, change=change)


BENCHMARK = [
    bad("benchmark of nothing", ["benchmark"], "BENCHMARK"),
    bad("unknown benchmark", ["benchmark", "speed"], "speed", "overhead"),
    bad("no data set", ["benchmark", "robustness", "-c", "2d", "-o", "x"], "-d"),
    robust("data set does not exist", ("-d", "Dataset999_No"), "Dataset999_No"),
    robust("data set by its number", ("-d", "620"), "620", NAME),
    robust("data set is empty text", ("-d", ""), "-d"),
    robust("data set climbs out", ("-d", f"../nnUNet_raw/{NAME}"), "../nnUNet_raw"),
    robust("nnUNet_raw is empty", (), "nnUNet_raw", environ={"nnUNet_raw": ""}),
    robust("configuration", ("-c", "foo"), "foo"),
    robust("groups that no case has", ("--groups", "patient"), "patient", "--groups"),
    robust("groups that are one", ("--groups", "case"), "2 cases are of one group", "--groups"),
    robust(
        "groups that are one in a fold",
        ("--folds", "0", "1", "--groups", "ROOT/t.csv"),
        "2 cases are of one group, 'a'",
        change=spoil.write("t.csv", "case,patient\ncase_0,a\ncase_1,a\ncase_2,b\ncase_3,c\n"),
    ),
    robust(
        "groups that no case has in nnU-Net's own splits",
        ("--groups", "patient"),
        "patient",
        "--groups",
        change=WITHOUT_SPLITS,
    ),
    robust(
        "groups by a missing table in nnU-Net's own splits",
        ("--groups", "ROOT/t.csv"),
        "ROOT/t.csv",
        "--groups",
        change=WITHOUT_SPLITS,
    ),
    robust("groups by a missing table", ("--groups", "ROOT/t.csv"), "ROOT/t.csv", "--groups"),
    robust("configuration is empty text", ("-c", ""), "-c"),
    robust("configuration with a slash", ("-c", "2d/x"), "2d/x"),
    robust("arm", ("--arms", "LNGSWRR"), "LNGSWRR", "LNGSWR"),
    robust("arm is empty text", ("--arms", ""), "arm"),
    robust("fold 9", ("--folds", "9"), "fold", "9"),
    robust("fold -1", ("--folds", "-1"), "fold", "-1"),
    robust("fold x", ("--folds", "x"), "--folds", "x"),
    robust("a fold twice", ("--folds", "0", "0"), "fold", "0"),
    robust("seed -1", ("--seeds", "-1"), "seed", "-1"),
    robust("seed x", ("--seeds", "x"), "--seeds", "x"),
    robust("a seed twice", ("--seeds", "1", "1"), "seed", "1"),
    robust("preset", ("--preset", "big"), "big", "cpu-small"),
    robust("hold out 9", ("--hold-out", "9"), "9", "0 to 1"),
    robust("hold out -1", ("--hold-out", "-1"), "-1"),
    robust("hold out what is trained", ("--hold-out", "0"), "fold 0"),
    robust(
        "hold out without splits",
        ("--hold-out", "1"),
        "splits_final.json",
        change=spoil.remove(SPLITS),
    ),
    robust("max-cases 0", ("--max-cases", "0"), "max_cases", "0"),
    robust("max-cases without end", ("--max-cases", str(10**10)), "max_cases", "at most"),
    robust("max-cases x", ("--max-cases", "x"), "--max-cases", "x"),
    robust("attack", ("--attacks", "pgdl2"), "pgdl2"),
    robust("attack of a surrogate", ("--attacks", "transfer"), "transfer needs", "--surrogate"),
    robust("attack beside none", ("--attacks", "none", "fgsm"), "none stands alone"),
    robust("attacks that are derived", ("--attacks", "worst_linf"), "nothing to run"),
    robust(
        "attack of torchattacks in 3D",
        ("-c", "3d_fullres", "--attacks", "torchattacks:FGSM"),
        "torchattacks:FGSM works in 2D only",
    ),
    robust(
        "attack of torchattacks on regions",
        ("--attacks", "torchattacks:FGSM"),
        "torchattacks:FGSM needs exclusive labels",
        change=spoil.change_json(f"{RAW}/dataset.json", {"labels.whole": [1, 2]}),
    ),
    robust("device", ("-device", "tpu"), "tpu", "cuda"),
    settings("end early", "{", "--settings", "JSON"),
    settings("are a list", "[]", "--settings", "[]"),
    settings("are null", "null", "--settings", "null"),
    settings("are a number", "3", "--settings", "3"),
    settings("are a text", '"LNGSWR"', "--settings"),
    settings("with an unknown key", '{"noise_sigma": 1}', "noise_sigma", "noise_sigma_input"),
    settings("with a wrong value", '{"gate_init": 2}', "gate_init", "2"),
    settings("with NaN", '{"gate_init": NaN}', "gate_init", "nan"),
    settings("with the budget", '{"num_epochs": 3}', "num_epochs"),
    settings("nested too deep", "[" * 100_000, "--settings"),
    robust("variants do not exist", ("--variants", "ROOT/no.json"), "ROOT/no.json"),
    robust("variants are a folder", ("--variants", "ROOT/nnUNet_raw"), "ROOT/nnUNet_raw"),
    variants("are empty", "", "v.json"),
    variants("are a list", "[]", "variants"),
    variants("are null", "null", "variants"),
    variants("are a number", "3", "variants"),
    variants("without an arm", '{"a": {}}', "a", "arm"),
    variants("of an unknown arm", '{"a": {"arm": "X", "gate_init": 0}}', "X"),
    variants("whose arm is a list", '{"a": {"arm": [], "gate_init": 0}}', "arm"),
    variants("that are null", '{"a": null}', "a", "None"),
    variants("with an arm's name", '{"LNG": {"arm": "SWR", "gate_init": 0}}', "LNG"),
    variants("with a path for a name", '{"a/b": {"arm": "SWR", "gate_init": 0}}', "a/b"),
    variants("that climb out", '{"..": {"arm": "SWR", "gate_init": 0}}', ".."),
    variants("without settings", '{"a": {"arm": "SWR"}}', "a", "SWR"),
    variants("with a seed", '{"a": {"arm": "SWR", "seed": 3}}', "seed"),
    variants("with an unknown key", '{"a": {"arm": "SWR", "gate": 3}}', "gate"),
    robust("output is a file", ("-o", f"ROOT/{SPLITS}"), SPLITS),
    robust("output below a file", ("-o", f"ROOT/{SPLITS}/x"), SPLITS),
    robust("output is empty text", ("-o", ""), "-o"),
    robust("output is something else's", ("-o", "ROOT/nnUNet_raw"), "ROOT/nnUNet_raw", "-o"),
    robust("output is a circle", ("-o", "ROOT/c"), "ROOT/c", change=spoil.circle("c")),
    robust(
        "output's marker is damaged",
        (),
        "benchmark.json",
        change=spoil.write("out/benchmark.json", "{"),
    ),
    robust(
        "output of another benchmark",
        (),
        "ROOT/out",
        "-o",
        change=spoil.write("out/benchmark.json", '{"dataset": "x"}'),
    ),
    robust("splits are damaged", (), "splits_final.json", change=spoil.write(SPLITS, "[")),
    robust("splits are an object", (), "splits_final.json", change=spoil.write(SPLITS, "{}")),
    robust(
        "splits without val",
        ("--hold-out", "1"),
        "splits_final.json",
        "val",
        change=spoil.write(SPLITS, '[{"train": []}, {"train": []}]'),
    ),
]


def overhead(*words: str) -> tuple[str, ...]:
    return ("benchmark", "overhead", *words)


OVERHEAD = [
    bad("plan", overhead("--plans", "4d"), "4d", "2d"),
    bad("no turn", overhead("--repeats", "0"), "repeats", "0"),
    bad("turns x", overhead("--repeats", "x"), "--repeats", "x"),
    bad("no thread", overhead("--threads", "0"), "threads", "0"),
    bad("threads -1", overhead("--threads", "-1"), "threads", "-1"),
    bad("device", overhead("-device", "tpu"), "tpu", "cuda"),
    bad(
        "output is a file",
        overhead("--plans", "2d", "-o", f"ROOT/{SPLITS}"),
        SPLITS,
        environ=FOLDERS,
    ),
]


def paper(name: str, words, *says: str, change=spoil.both(), environ=FOLDERS):
    argv = ("paper", "lidc", "-f", "0", "1", "-o", "ROOT/out", "--dry-run", *words)
    return bad(name, argv, *says, spoil=change, environ=environ)


def paper_plans(name: str, content: str, *says: str):
    change = spoil.write(PLANS, content)
    return paper(name, (), "nnUNetPlans.json", *says, change=change)


PAPER = [
    bad("no data set", ["paper"], "dataset"),
    bad("unknown data set", ["paper", "busi"], "busi", "lidc"),
    paper("variables are not set", (), "nnUNet_raw", environ=dict.fromkeys(FOLDERS, "")),
    paper("number of no data set", ("-d", "999"), "999"),
    paper("number -1", ("-d", "-1"), "-1"),
    paper("number x", ("-d", "x"), "-d", "x"),
    paper(
        "two data sets of a number",
        (),
        "620",
        "Dataset620_B",
        change=spoil.folder("nnUNet_raw/Dataset620_B"),
    ),
    paper("fold 5", ("-f", "5"), "5", "splits_final.json"),
    paper("fold -1", ("-f", "-1"), "-1", "-f"),
    paper("a fold twice", ("-f", "1", "1"), "1 1", "-f"),
    paper("fold x", ("-f", "x"), "-f", "x"),
    paper("epochs 7", ("--epochs", "7"), "7", "100"),
    paper("steps 0", ("--steps", "0"), "steps", "0"),
    paper("steps -1", ("--steps", "-1"), "steps", "-1"),
    paper("steps x", ("--steps", "x"), "--steps", "x"),
    paper("max-cases 0", ("--max-cases", "0"), "max", "cases", "0"),
    paper("max-cases -1", ("--max-cases", "-1"), "max", "cases", "-1"),
    paper("device", ("-device", "tpu"), "tpu", "cuda"),
    paper("plans do not exist", ("-p", "NoPlans"), "NoPlans", "-p"),
    paper("plans climb out", ("-p", "../../x"), "../../x"),
    paper(
        "configuration",
        ("-c", "4d"),
        "4d",
        change=spoil.write(PLANS, '{"configurations": {"2d": {}}}'),
    ),
    paper("configuration is empty text", ("-c", ""), "-c"),
    paper_plans("plans are damaged", "{"),
    paper_plans("plans are a list", "[1]"),
    paper_plans("configurations are a list", '{"configurations": ["2d"]}', "configurations"),
    paper_plans("configuration is null", '{"configurations": {"2d": null}}', "2d"),
    paper_plans(
        "configuration inherits from nothing",
        '{"configurations": {"2d": {"inherits_from": "x"}}}',
        "x",
    ),
    paper_plans(
        "configuration inherits from itself",
        '{"configurations": {"2d": {"inherits_from": "2d"}}}',
        "2d",
    ),
    paper("no splits", (), "splits_final.json", change=spoil.remove(SPLITS)),
    paper("splits are damaged", (), "splits_final.json", change=spoil.write(SPLITS, "[")),
    paper("splits are an object", (), "splits_final.json", change=spoil.write(SPLITS, "{}")),
    paper(
        "splits without val",
        (),
        "splits_final.json",
        "val",
        change=spoil.write(SPLITS, '[{"train": []}, {"train": []}]'),
    ),
    paper("no dataset.json", (), "dataset.json", change=spoil.remove(f"{RAW}/dataset.json")),
    paper("output is a file", ("-o", f"ROOT/{SPLITS}"), SPLITS),
    paper("output is empty text", ("-o", ""), "-o"),
    paper(
        "output of another protocol",
        (),
        "protocol.json",
        "-o",
        change=spoil.write("out/protocol.json", json.dumps({"dataset_id": 1})),
    ),
    paper(
        "output's protocol is damaged",
        (),
        "protocol.json",
        change=spoil.write("out/protocol.json", "{"),
    ),
]


def demo(*words: str) -> tuple[str, ...]:
    return ("demo", "-o", "ROOT/demo", *words)


DEMO = [
    bad("set", demo("--sets", "4d"), "4d", "2d"),
    bad("device", demo("-device", "tpu"), "tpu", "cuda"),
    bad("output is a file", demo("-o", f"ROOT/{SPLITS}"), SPLITS, "-o"),
    bad("output below a file", demo("-o", f"ROOT/{SPLITS}/x"), SPLITS, "-o"),
    bad("output is empty text", demo("-o", ""), "-o"),
    bad("output is something else's", demo("-o", "ROOT/nnUNet_raw"), "ROOT/nnUNet_raw", "-o"),
    bad("output is a circle", demo("-o", "ROOT/c"), "ROOT/c", "-o", spoil=spoil.circle("c")),
    bad(
        "output's marker is damaged",
        demo(),
        "lngswr_demo.json",
        spoil=spoil.write("demo/lngswr_demo.json", "{"),
    ),
    bad(
        "output of other settings",
        demo(),
        "--overwrite",
        spoil=spoil.write("demo/lngswr_demo.json", "{}"),
    ),
    bad("output may not be made", demo(), "ROOT", refused="."),
]


@pytest.mark.parametrize("row", rows(BENCHMARK))
def test_a_benchmark_refuses(row, refuses):
    refuses(main, row, "experiment")


@pytest.mark.parametrize("row", rows(OVERHEAD))
def test_overhead_refuses(row, refuses):
    refuses(main, row, "experiment")


@pytest.mark.parametrize("row", rows(PAPER))
def test_the_papers_protocol_refuses(row, refuses):
    refuses(main, row, "experiment")


@pytest.mark.parametrize("row", rows(DEMO))
def test_the_demo_refuses(row, refuses):
    refuses(main, row, "experiment")
