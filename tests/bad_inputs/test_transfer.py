"""`lngswr benchmark transfer`: bad models, data sets and options, found before anything runs."""

import json

import pytest

from nnunetv2_lngswr.cli.main import main
from nnunetv2_lngswr.experiments.transfer import run
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import FOREIGN, bad, rows
from tests.bad_inputs.spoil import DROP
from tests.experiments.transfer.world import ROBUST, VANILLA, A, B
from tests.model_folders import make_model_folder

HERE, THERE = (f"nnUNet_results/{name}/{VANILLA}__nnUNetPlans__2d" for name in (A, B))
HARDENED = f"nnUNet_results/{A}/{ROBUST}__nnUNetPlans__2d"
RAW = f"nnUNet_raw/{B}"
SPLITS = f"nnUNet_preprocessed/{A}/splits_final.json"
ENVIRON = {f"nnUNet_{n}": f"ROOT/nnUNet_{n}" for n in ("raw", "preprocessed", "results")}
MODELS = ("-m", f"ROOT/{HERE}", f"ROOT/{THERE}")
DATA = ("-d", A, B)
CASE = "thyroid_p000_0"


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """What is not refused must not run."""

    def ran(*words, **options):
        raise AssertionError("it was not refused, but ran")

    monkeypatch.setattr(run, "run_command", ran)


def transfer(name: str, words, *says: str, change=spoil.both(), environ=ENVIRON):
    # of options that are given twice the last one counts
    argv = ("benchmark", "transfer", *MODELS, *DATA, "-o", "ROOT/out", *words)
    return bad(name, argv, *says, spoil=change, environ=environ)


def described(name: str, changes, *says: str, words=()):
    """Another dataset.json of the other data set."""
    change = spoil.change_json(f"{RAW}/dataset.json", changes)
    return transfer(f"other data set {name}", words, f"{RAW}/dataset.json", *says, change=change)


def validated(*cases: str) -> spoil.Spoil:
    """What nnU-Net leaves of a training's validation."""
    metrics = [{"reference_file": f"/data/{case}.png"} for case in cases]
    file = f"{HERE}/fold_0/validation/summary.json"
    return spoil.write(file, json.dumps({"metric_per_case": metrics}))


def cascade(root):
    folder = make_model_folder(root, dimension=3, previous_stage="3d_lowres")
    folder.rename(root / "cascade")


INPUTS = [
    bad("no model", ("benchmark", "transfer", *DATA, "-o", "x"), "-m"),
    bad("no data set", ("benchmark", "transfer", *MODELS, "-o", "x"), "-d"),
    bad("no output", ("benchmark", "transfer", *MODELS, *DATA), "-o"),
    transfer("one data set alone", ("-d", A), "two or more", A, "-d"),
    transfer("a data set twice", ("-d", A, B, A), "each once", "-d"),
    transfer("data set does not exist", ("-d", A, "Dataset999_No"), "Dataset999_No", A),
    transfer("data set climbs out", ("-d", A, f"../nnUNet_raw/{B}"), f"../nnUNet_raw/{B}"),
    transfer("data set is empty text", ("-d", A, ""), "-d"),
    transfer("nnUNet_raw is not set", (), "nnUNet_raw", environ={**ENVIRON, "nnUNet_raw": ""}),
    transfer(
        "a model's own data set is not named",
        ("-d", A, "Dataset904_X"),
        f"{THERE} was trained on {B}",
        "-d",
        change=spoil.both(
            spoil.move(RAW, "nnUNet_raw/Dataset904_X"),
            spoil.move(f"nnUNet_preprocessed/{B}", "nnUNet_preprocessed/Dataset904_X"),
        ),
    ),
    transfer("model does not exist", ("-m", "ROOT/no"), "ROOT/no"),
    transfer("model is a file", ("-m", f"ROOT/{SPLITS}"), SPLITS),
    transfer("model is empty text", ("-m", ""), "-m"),
    transfer("model of no UTF-8", ("-m", f"ROOT/{FOREIGN}"), "UTF-8"),
    transfer("model is a fold", ("-m", f"ROOT/{HERE}/fold_0"), "plans.json", "fold_0"),
    transfer("model twice", ("-m", f"ROOT/{HERE}", f"ROOT/{HERE}/"), "twice", HERE, "-m"),
    transfer(
        "model twice by a link",
        ("-m", f"ROOT/{HERE}", "ROOT/again"),
        "ROOT/again",
        "twice",
        change=spoil.link("again", HERE),
    ),
    transfer("model without plans", (), "plans.json", change=spoil.remove(f"{HERE}/plans.json")),
    transfer(
        "model's checkpoint ends early",
        (),
        "checkpoint_final.pth",
        change=spoil.cut(f"{HERE}/fold_1/checkpoint_final.pth"),
    ),
    transfer("cascade", ("-m", "ROOT/cascade"), "ROOT/cascade", "cascade", change=cascade),
    transfer(
        "fold_all",
        (),
        "fold_all",
        HERE,
        "-f",
        change=spoil.both(
            spoil.move(f"{HERE}/fold_0", f"{HERE}/fold_all"), spoil.remove(f"{HERE}/fold_1")
        ),
    ),
    transfer("fold that one model lacks", ("-f", "1"), "fold_1", THERE, "-f"),
    transfer("fold x", ("-f", "x"), "x", "-f"),
    transfer("checkpoint", ("-chk", "best.pth"), "best.pth", "-chk"),
]
CASES = [
    described("is damaged", {"labels": DROP}, "labels"),
    described("has labels that are a list", {"labels": [0, 1]}, "labels"),
    described("has another name", {"labels": {"background": 0, "lesion": 1}}, "lesion 1", HERE),
    described("has another number", {"labels": {"background": 0, "nodule": 2}}, "nodule 2", HERE),
    described("has a region", {"labels.Nodule": [1, 2], "regions_class_order": [1]}, "[1, 2]"),
    described("has CT", {"channel_names": {"0": "CT"}}, "CT", "--allow-other-channels"),
    described(
        "has two channels",
        {"channel_names": {"0": "US", "1": "US"}},
        "US, US",
        words=("--allow-other-channels",),
    ),
    described("places its cases elsewhere", {"dataset": {"a": {}}}, "imagesTr", "dataset"),
    transfer(
        "other data set has no dataset.json", (), B, change=spoil.remove(f"{RAW}/dataset.json")
    ),
    transfer("no images", (), "imagesTr", RAW, change=spoil.remove(f"{RAW}/imagesTr")),
    transfer("no labels", (), "labelsTr", RAW, change=spoil.remove(f"{RAW}/labelsTr")),
    transfer(
        "an image without a label", (), CASE, change=spoil.remove(f"{RAW}/labelsTr/{CASE}.png")
    ),
    transfer(
        "images of another format",
        (),
        ".nii.gz",
        RAW,
        change=spoil.change_json(f"{RAW}/dataset.json", {"file_ending": ".nii.gz"}),
    ),
    transfer(
        "a case in both",
        (),
        f"new ({CASE} there)",
        A,
        B,
        change=spoil.both(
            spoil.copy(f"nnUNet_raw/{A}/imagesTr/{CASE}_0000.png", f"{RAW}/imagesTr/new_0000.png"),
            spoil.copy(f"nnUNet_raw/{A}/labelsTr/{CASE}.png", f"{RAW}/labelsTr/new.png"),
        ),
    ),
    transfer("no splits", (), SPLITS, change=spoil.remove(SPLITS)),
    transfer("splits are damaged", (), SPLITS, change=spoil.write(SPLITS, "[")),
    transfer(
        "splits have fewer folds", (), "no fold 1", change=spoil.change_json(SPLITS, {"1": DROP})
    ),
    transfer(
        "splits are not those of the training",
        (),
        SPLITS.rpartition("/")[2],
        "may have seen",
        HERE,
        change=validated("thyroid_p001_0"),
    ),
    transfer(
        "validation of the training is damaged",
        (),
        "validation/summary.json",
        change=spoil.write(f"{HERE}/fold_0/validation/summary.json", "{"),
    ),
]
OPTIONS = [
    transfer("attack", ("--attacks", "pgdl2"), "pgdl2"),
    transfer("attacks none and another", ("--attacks", "none", "fgsm"), "none", "fgsm", "alone"),
    transfer("no budget", ("--epsilons", "none"), "--epsilons"),
    transfer("budget x", ("--epsilons", "x"), "x"),
    transfer("corruption", ("--corruptions", "snow"), "snow"),
    transfer("corruption of CT", ("--corruptions", "hu_offset"), "hu_offset", "CT"),
    transfer("max-cases 0", ("--max-cases", "0"), "--max-cases", "0"),
    transfer("max-cases x", ("--max-cases", "x"), "--max-cases", "x"),
    transfer("device", ("-device", "tpu"), "tpu", "cuda"),
    transfer("groups that no case has", ("--groups", "patient"), "patient", "--groups"),
    transfer("groups that are one", ("--groups", "thyroid"), "thyroid", "--groups"),
    transfer("groups by a missing table", ("--groups", "ROOT/t.csv"), "ROOT/t.csv", "--groups"),
    transfer("groups, two for all", ("--groups", "a", "b"), "a b", "--groups"),
    transfer("groups, two for one", ("--groups", f"{A}=a", f"{A}=b"), A, "--groups"),
    transfer("groups of no data set", ("--groups", r"Dataset9_X=p\d+"), "Dataset9_X", "--groups"),
    transfer("labels without a pair", ("--map-labels", "nodule"), "nodule", "--map-labels"),
    transfer("labels without a name", ("--map-labels", "=nodule"), "=nodule", "--map-labels"),
    transfer("labels of three", ("--map-labels", "a=b=c"), "a=b=c", "--map-labels"),
    transfer("label that nobody has", ("--map-labels", "nodule=x"), "x", "nodule", "--map-labels"),
    transfer("label for the background", ("--map-labels", "nodule=background"), "--map-labels"),
    transfer("output is a file", ("-o", f"ROOT/{SPLITS}"), SPLITS),
    transfer("output below a file", ("-o", f"ROOT/{SPLITS}/x"), SPLITS),
    transfer("output is empty text", ("-o", ""), "-o"),
    transfer("output is something else's", ("-o", "ROOT/nnUNet_raw"), "ROOT/nnUNet_raw", "-o"),
    transfer("output in a model", ("-o", f"ROOT/{HERE}/out"), HERE, "-o"),
    transfer("output in a data set", ("-o", f"ROOT/{RAW}/out"), RAW, "-o"),
    transfer("output is a circle", ("-o", "ROOT/c"), "ROOT/c", change=spoil.circle("c")),
    transfer(
        "output's marker is damaged",
        (),
        "benchmark.json",
        change=spoil.write("out/benchmark.json", "{"),
    ),
    transfer(
        "output of another benchmark",
        (),
        "ROOT/out",
        "-o",
        change=spoil.write("out/benchmark.json", '{"dataset": "x", "evaluation": []}'),
    ),
]


@pytest.mark.parametrize("row", rows(INPUTS))
def test_models_and_data_sets_are_refused(row, refuses):
    refuses(main, row, "transfers")


@pytest.mark.parametrize("row", rows(CASES))
def test_what_does_not_go_together_is_refused(row, refuses):
    refuses(main, row, "transfers")


@pytest.mark.parametrize("row", rows(OPTIONS))
def test_options_are_refused(row, refuses):
    refuses(main, row, "transfers")
