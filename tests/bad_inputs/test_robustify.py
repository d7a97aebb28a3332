"""`lngswr robustify`: bad models, data, options and places, found before anything is written."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from nnunetv2_lngswr.cli.main import main
from nnunetv2_lngswr.experiments.robustify import run
from nnunetv2_lngswr.installation import register
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import FOREIGN, bad, rows
from tests.bad_inputs.spoil import DROP
from tests.bad_inputs.worlds import MODEL

NAME = "Dataset999_Tiny"
FOLDER = f"nnUNet_results/{NAME}/{MODEL}"
PLANS, DATASET = f"{FOLDER}/plans.json", f"{FOLDER}/dataset.json"
CHECKPOINT = f"{FOLDER}/fold_0/checkpoint_final.pth"
DATA = f"nnUNet_preprocessed/{NAME}"
PREPROCESSED, PLANNED = f"{DATA}/nnUNetPlans_2d", f"{DATA}/nnUNetPlans.json"
CONFIGURATION = "configurations.2d"
ENVIRON = {f"nnUNet_{n}": f"ROOT/nnUNet_{n}" for n in ("raw", "preprocessed", "results")}
VALIDATED = f"{FOLDER}/fold_0/validation/summary.json"
PREPROCESS = "nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d"


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """What is not refused must not train."""

    def ran(*words, **options):
        raise AssertionError("it was not refused, but ran")

    monkeypatch.setattr(register, "trainers_are_found", lambda: True)
    monkeypatch.setattr(run, "run_command", ran)


def robustify(name: str, words, *says: str, model=f"ROOT/{FOLDER}", change=spoil.both(), **more):
    argv = ("robustify", *([model] if isinstance(model, str) else model), "-o", "ROOT/out", *words)
    return bad(name, argv, *says, spoil=change, environ=more.pop("environ", ENVIRON), **more)


def given(name: str, model: str, *says: str, change=spoil.both(), words=()):
    return robustify(f"model {name}", words, *says, model=f"ROOT/{model}", change=change)


def repacked(change) -> spoil.Spoil:
    """The zip file with other members: `change` gets {name: content}."""

    def spoil_zip(root: Path) -> None:
        file = root / "model.zip"
        with zipfile.ZipFile(file) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        file.unlink()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in change(members).items():
                archive.writestr(name, content)

    return spoil_zip


def second_model(members: dict) -> dict:
    return members | {k.replace("__2d/", "__3d_fullres/"): v for k, v in members.items()}


def with_previous_stage(weights: dict) -> dict:
    """A second input channel, for the segmentation of the previous stage."""
    first = "encoder.stages.0.0.convs.0."
    return {
        key: value.repeat(1, 2, 1, 1) if first in key and value.ndim == 4 else value
        for key, value in weights.items()
    }


MODELS = [
    given("does not exist", "no", "ROOT/no"),
    given("is a text", PLANS, "plans.json", "neither a model folder nor a zip file"),
    given("is a fold", f"{FOLDER}/fold_0", "plans.json is missing"),
    given(
        "is of nnU-Net v1",
        FOLDER,
        "no nnU-Net v2 model folder",
        "plans.json",
        change=spoil.move(PLANS, f"{FOLDER}/plans.pkl"),
    ),
    given("has no fold", FOLDER, "fold", change=spoil.remove(f"{FOLDER}/fold_0")),
    given("has no such fold", FOLDER, "no fold_3", words=("-f", "3")),
    given("fold is a word", FOLDER, "fold", "x", words=("-f", "x")),
    given("has no such checkpoint", FOLDER, "no.pth", "-chk", words=("-chk", "no.pth")),
    given("plans are damaged", FOLDER, "plans.json", "JSON", change=spoil.cut(PLANS)),
    given(
        "plans are older and cannot be read",
        FOLDER,
        "architecture",
        "older plans",
        change=spoil.change_json(PLANS, {f"{CONFIGURATION}.architecture": DROP}),
    ),
    given(
        "plans name a function",
        FOLDER,
        "os.system",
        "--trust-checkpoint",
        change=spoil.change_json(
            PLANS, {f"{CONFIGURATION}.architecture.network_class_name": "os.system"}
        ),
    ),
    given(
        "plans are of a later version of ours",
        FOLDER,
        "lngswr",
        "colour",
        change=spoil.change_json(PLANS, {f"{CONFIGURATION}.lngswr": {"colour": 1}}),
    ),
    given(
        "checkpoint holds objects",
        FOLDER,
        "print",
        "--trust-checkpoint",
        change=spoil.change_checkpoint(CHECKPOINT, {"_best_ema": lambda best: print}),
    ),
    given("checkpoint is cut", FOLDER, CHECKPOINT, change=spoil.cut(CHECKPOINT)),
    given(
        "checkpoint is of another network",
        FOLDER,
        "fit",
        change=spoil.change_checkpoint(CHECKPOINT, {"network_weights": {"a": torch.ones(1)}}),
    ),
    given(
        "trainer is unknown",
        FOLDER,
        "nnUNetTrainerMine",
        change=spoil.change_checkpoint(CHECKPOINT, {"trainer_name": "nnUNetTrainerMine"}),
    ),
    given(
        "is a cascade",
        FOLDER,
        "is the second stage of a cascade",
        change=spoil.both(
            spoil.change_json(PLANS, {f"{CONFIGURATION}.previous_stage": "3d_lowres"}),
            spoil.change_checkpoint(CHECKPOINT, {"network_weights": with_previous_stage}),
        ),
    ),
    given(
        "is of another configuration",
        FOLDER,
        "is of configuration 2d, asked for was 3d_fullres",
        "-c",
        words=("-c", "3d_fullres"),
    ),
    given("is an empty zip file", "model.zip", "holds no", change=repacked(lambda m: {})),
    given(
        "is a zip file of something else",
        "model.zip",
        "holds no nnU-Net v2 model",
        "nnUNetv2_export_model_to_zip",
        change=repacked(lambda m: {"paper/plans.json": b"{}", "readme.txt": b""}),
    ),
    given(
        "is a zip file of nnU-Net v1",
        "model.zip",
        "holds no nnU-Net v2 model",
        change=repacked(lambda m: {k.replace("plans.json", "plans.pkl"): v for k, v in m.items()}),
    ),
    given("is a zip file that is cut", "model.zip", "model.zip", change=spoil.cut("model.zip")),
    given(
        "is one of two in a zip file",
        "model.zip",
        "__3d_fullres",
        "-c",
        change=repacked(second_model),
    ),
    given("is none of a zip file", "model.zip", "__2d", "-c", words=("-c", "3d_fullres")),
]


def data(name: str, change, *says: str, words=()):
    return robustify(f"data: {name}", words, *says, change=change)


DATA_ROWS = [
    robustify(
        "nnUNet_preprocessed is not set",
        (),
        "nnUNet_preprocessed",
        environ=ENVIRON | {"nnUNet_preprocessed": ""},
    ),
    data("nothing", spoil.remove(DATA), ": run nnUNetv2_plan_and_preprocess -d 999 -c 2d"),
    data(
        "nothing, of another planner",
        spoil.both(
            spoil.remove(DATA),
            spoil.change_json(PLANS, {"experiment_planner_used": "nnUNetPlannerResEncM"}),
        ),
        "nnUNetv2_plan_and_preprocess -d 999 -c 2d -pl nnUNetPlannerResEncM",
    ),
    data(
        "nothing, of a planner that a shell would run",
        spoil.both(
            spoil.remove(DATA), spoil.change_json(PLANS, {"experiment_planner_used": "X; touch y"})
        ),
        "nnUNetv2_plan_and_preprocess -d 999 -c 2d -pl 'X; touch y'",
    ),
    data(
        "of a name without a number",
        spoil.both(spoil.remove(DATA), spoil.change_json(PLANS, {"dataset_name": "Lungs"})),
        "dataset_name",
        "Lungs",
    ),
    data("no fingerprint", spoil.remove(f"{DATA}/dataset_fingerprint.json"), "fingerprint"),
    data("not preprocessed", spoil.remove(PREPROCESSED), f": run {PREPROCESS}"),
    data(
        "a case is missing",
        spoil.remove(f"{PREPROCESSED}/case1.pkl"),
        "case1",
        f": run {PREPROCESS}",
    ),
    data(
        "no plans",
        spoil.remove(PLANNED),
        "described by no plans",
        f"put the model's plans.json there as nnUNetPlans.json and run {PREPROCESS}",
    ),
    data(
        "preprocessed otherwise",
        # the copy describes data that are there no more
        spoil.both(
            spoil.copy(PLANNED, f"{DATA}/Copy.json"),
            spoil.change_json(PLANNED, {f"{CONFIGURATION}.spacing": [2.0, 2.0]}),
        ),
        "preprocessed by nnUNetPlans.json",
        "spacing",
        f"put the model's plans.json there as nnUNetPlans.json and run {PREPROCESS}",
    ),
    data(
        "other labels",
        spoil.change_json(f"{DATA}/dataset.json", {"labels.ball": 2}),
        "labels",
        "another data set",
    ),
    data(
        "other splits than in training",
        spoil.write(
            f"{DATA}/splits_final.json",
            json.dumps([{"train": ["case1", "case2"], "val": ["case0", "case3"]}]),
        ),
        "splits_final.json",
        "other validation cases",
    ),
    data(
        "splits are damaged",
        spoil.write(f"{DATA}/splits_final.json", "["),
        "splits_final.json",
        "JSON",
    ),
    data("no splits", spoil.remove(f"{DATA}/splits_final.json"), "splits_final.json is missing"),
    data(
        "no splits, no record of the validation",
        spoil.both(spoil.remove(f"{DATA}/splits_final.json"), spoil.remove(VALIDATED)),
        "splits",
        "--skip-evaluation",
    ),
    data("no raw data", spoil.remove("nnUNet_raw"), "nnUNet_raw", "--skip-evaluation"),
    data(
        "validation's summary is damaged",
        spoil.write(VALIDATED, '{"metric_per_case": [1]}'),
        "metric_per_case",
    ),
]

OPTIONS = [
    bad("no model", ["robustify", "-o", "x"], "MODEL"),
    bad("the model behind folds", ["robustify", "-o", "x", "-f", "0", "m"], "before -f"),
    bad("two models", ["robustify", "m", "-m", "m", "-o", "x"], "give one model"),
    robustify("-m: model is not there", ("-f", "7"), "fold", model=("-m", f"ROOT/{FOLDER}")),
    bad("no output", ["robustify", "x"], "-o"),
    robustify("model is empty text", (), "MODEL", model=""),
    robustify("trainer", ("-tr", "nnUNetTrainerLNG"), "nnUNetTrainerLNG", "nnUNetTrainerAT"),
    robustify("share 0", ("--share", "0"), "share", "0"),
    robustify("share above 1", ("--share", "1.5"), "share", "1.5"),
    robustify("share NaN", ("--share", "nan"), "share", "nan"),
    robustify("share x", ("--share", "x"), "--share", "x"),
    robustify("settings end early", ("--settings", "{"), "--settings", "JSON"),
    robustify("settings are null", ("--settings", "null"), "--settings", "null"),
    robustify("settings are a list", ("--settings", "[1]"), "--settings", "[1]"),
    robustify("settings with a stray start", ("--settings", '{"start": 0.8}'), "adversarial"),
    robustify("settings are unknown", ("--settings", '{"gain": 1}'), "gain", "gains"),
    robustify("settings with a budget", ("--settings", '{"num_epochs": 3}'), "num_epochs"),
    robustify("settings with a start", ("--settings", '{"warm_start": "a"}'), "warm_start"),
    robustify(
        "settings for other axes",
        ("-tr", "nnUNetTrainerLNGSWRAT", "--settings", '{"gains": [0.1, 0.2, 0.3, 0.4, 0.5]}'),
        "gains",
    ),
    robustify("attack", ("--attacks", "pgdl2"), "pgdl2"),
    robustify("attack without budgets", ("--attacks", "pgd_l2"), "pgd_l2", "budgets"),
    robustify("budget", ("--epsilons", "4/0"), "epsilon", "4/0"),
    robustify("max-cases 0", ("--max-cases", "0"), "--max-cases", "0"),
    robustify("device", ("-device", "tpu"), "tpu", "cuda"),
    robustify("images without labels", ("-i", "ROOT/nnUNet_raw"), "-i", "-l"),
    robustify("images do not exist", ("-i", "ROOT/no", "-l", "ROOT/nnUNet_raw"), "ROOT/no", "-i"),
    robustify("output in the model", ("-o", f"ROOT/{FOLDER}/out"), FOLDER, "-o"),
    robustify("output is a file", ("-o", f"ROOT/{PLANS}"), PLANS),
    robustify("output is something else's", ("-o", "ROOT/nnUNet_raw"), "ROOT/nnUNet_raw", "-o"),
    robustify("output is no UTF-8", ("-o", f"ROOT/{FOREIGN}"), "-o", "UTF-8"),
    robustify(
        "output's record is damaged",
        (),
        "robustify.json",
        change=spoil.write("out/robustify.json", "{"),
    ),
    robustify(
        "output is of another call",
        (),
        "ROOT/out",
        "another model",
        change=spoil.write("out/robustify.json", '{"model": "x"}'),
    ),
]


@pytest.mark.parametrize("row", rows([*MODELS, *DATA_ROWS, *OPTIONS]))
def test_is_refused_in_one_line(row, refuses):
    refuses(main, row, "trained")
