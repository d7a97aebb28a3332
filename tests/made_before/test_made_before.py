"""Models and OUT folders from before the move of the modules are read after it; see make.py."""

import csv
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from evaluation import compare
from evaluation.metrics import CALIBRATION
from evaluation.robust import evaluate
from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint

# once is enough for a user, and here it is meant
pytestmark = pytest.mark.filterwarnings("ignore:shifts is now called corruptions:FutureWarning")

ROOT = Path(__file__).parents[2]
TRAINERS = {"lngswr": "nnUNetTrainerLNGSWR", "vanilla": "nnUNetTrainerVanilla"}
ARMS = tuple(TRAINERS)
CASES = ("case3", "case4")
# by their names of then
OPTIONS = {
    "attacks": ("noise", "pgd_linf"),
    "epsilons": ("24/255",),
    "epsilons_l2": ("4/255",),
    "steps": 3,
    "shifts": ("gaussian_blur",),
    "device": "cpu",
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """Not to be written to."""
    folder = tmp_path_factory.mktemp("unpacked")
    unpack(folder)
    return folder


@pytest.fixture
def made(tmp_path) -> Path:
    """A copy that may be written to."""
    unpack(tmp_path / "made")
    return tmp_path / "made"


def unpack(folder: Path) -> None:
    with tarfile.open(Path(__file__).with_name("made.tar.xz")) as archive:
        archive.extractall(folder, filter="data")


def model_folder(made: Path, arm: str) -> Path:
    return made / f"{TRAINERS[arm]}__nnUNetPlans__2d"


def run(made: Path, arm: str, out: Path):
    return evaluate(
        model_folder(made, arm),
        out,
        images=made / "images",
        labels=made / "labels",
        progress=False,
        **OPTIONS,
    )


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def same_rows(found: list[dict[str, str]], expected: list[dict[str, str]]) -> None:
    """Columns, texts and empty cells as they were, numbers to 1e-6."""
    assert [list(row) for row in found] == [list(row) for row in expected]
    for ours, theirs in zip(found, expected):
        for column, text in theirs.items():
            if is_number(text):
                close = pytest.approx(float(text), rel=1e-6, abs=1e-6, nan_ok=True)
                assert float(ours[column]) == close, (column, theirs)
            else:
                assert ours[column] == text, (column, theirs)


def test_the_folders_are_from_before(unpacked):
    plans = json.loads((model_folder(unpacked, "lngswr") / "plans.json").read_text())
    assert {"learned", "start"} <= plans["configurations"]["2d"]["lngswr"].keys()
    settings = json.loads((unpacked / "out_lngswr" / "settings.json").read_text())
    assert settings["options"]["shifts"] == ["gaussian_blur"]


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.0.0",
    reason="nnU-Net's own loader cannot read under NumPy 1 what NumPy 2 wrote",
)
@pytest.mark.parametrize("arm", ARMS)
def test_a_model_predicts_what_it_predicted(unpacked, monkeypatch, arm):
    stored = np.load(unpacked / "made.npz")
    folder = model_folder(unpacked, arm)
    weights = load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")["network_weights"]
    assert any(key.endswith("theta") for key in weights) == (arm == "lngswr")
    monkeypatch.setattr(
        "nnunetv2.inference.predict_from_raw_data.recursive_find_trainer_class_by_name",
        lambda name: getattr(trainers, name),
    )
    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    for case in CASES:
        x = torch.from_numpy(stored[f"{arm}_{case}_preprocessed"])
        logits = predictor.predict_logits_from_preprocessed_data(x).float().numpy()
        np.testing.assert_allclose(logits, stored[f"{arm}_{case}_logits"], rtol=0, atol=1e-5)
        file = unpacked / "images" / f"{case}_0000.nii.gz"
        segmentation = predictor.predict_single_npy_array(*SimpleITKIO().read_images([str(file)]))
        assert np.array_equal(segmentation, stored[f"{arm}_{case}_segmentation"])


@pytest.mark.parametrize("arm", ARMS)
def test_an_evaluation_that_was_finished_is_not_done_again(made, arm):
    out = made / f"out_{arm}"
    kept = [out / "settings.json", *sorted((out / "parts").iterdir())]
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in kept]
    cases = (out / "cases.csv").read_bytes()
    assert len(kept) == 5 and run(made, arm, out).finished
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in kept] == before
    assert (out / "cases.csv").read_bytes() == cases


@pytest.mark.parametrize("arm", ARMS)
def test_an_evaluation_today_has_the_same_rows_and_stronger_attacks(unpacked, tmp_path, arm):
    # since issue 19 attacks return the iterate of lowest Dice, then it was that of the highest loss
    assert run(unpacked, arm, tmp_path / "out").finished
    rows = table(tmp_path / "out" / "cases.csv"), table(unpacked / f"out_{arm}" / "cases.csv")
    for row in rows[0]:  # which they did not have then
        assert all(0 <= float(row.pop(metric)) <= 1 for metric in CALIBRATION)
    same_rows(*([row for row in t if not is_attacked(row)] for t in rows))
    ours, theirs = ([row for row in t if is_attacked(row)] for t in rows)
    assert len(ours) == len(theirs) >= 2 * len(CASES)
    for now, then in zip(ours, theirs):
        run_of = ("case", "kind", "attack", "norm", "epsilon_text", "label")
        assert list(now) == list(then) and all(now[c] == then[c] for c in run_of)
        assert float(now["dice"]) <= float(then["dice"]) + 1e-6, then


def test_what_was_left_unfinished_then_is_refused_and_what_was_finished_says_by_what(made):
    # then attacks returned the iterate of the highest loss: a table must not hold both
    out = made / "out_vanilla"
    assert run(made, "vanilla", out).finished
    assert json.loads((out / "summary.json").read_text())["best_iterate"] == "loss"
    before = (out / "cases.csv").read_bytes()
    sorted((out / "parts").glob("*.json"))[0].unlink()
    with pytest.raises(ValueError, match="finished by an earlier version, whose attacks returned"):
        run(made, "vanilla", out)
    assert (out / "cases.csv").read_bytes() == before
    (out / "summary.json").unlink()
    with pytest.raises(ValueError, match="best_iterate: was null, is dice"):
        run(made, "vanilla", out)


def test_results_of_then_are_not_compared_with_those_of_today(unpacked, tmp_path):
    assert run(unpacked, "vanilla", tmp_path / "out").finished
    folders = [str(tmp_path / "out"), str(unpacked / "out_lngswr")]
    with pytest.raises(ValueError, match="not comparable: best iterate: was dice, is loss"):
        compare.compare(folders, tmp_path / "compared")


def is_attacked(row: dict[str, str]) -> bool:
    """Whether an attack looked for the row's perturbation; noise is not looked for."""
    return row["kind"] == "worst" or (row["kind"] == "attack" and row["attack"] != "noise")


def test_a_comparison_has_the_same_table(unpacked, tmp_path):
    folders = [str(unpacked / f"out_{arm}") for arm in ("vanilla", "lngswr")]
    assert compare.main([*folders, "-o", str(tmp_path / "compared")]) == 0
    tables = [table(place / "compared" / "compare.csv") for place in (tmp_path, unpacked)]
    for row in (*tables[0], *tables[1]):
        assert Path(row.pop("folder")).name in ("out_vanilla", "out_lngswr")
    same_rows(*tables)


def test_the_command_takes_the_options_of_then(made):
    out = made / "out_vanilla"
    parts = {p.name: p.stat().st_mtime_ns for p in (out / "parts").iterdir()}
    options = [
        *("-m", str(model_folder(made, "vanilla")), "-o", str(out)),
        *("-i", str(made / "images"), "-l", str(made / "labels"), "-device", "cpu"),
        *("--attacks", "noise", "pgd_linf", "--epsilons", "24/255", "--epsilons-l2", "4/255"),
        *("--steps", "3", "--shifts", "gaussian_blur", "--workers", "1"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.robust", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {p.name: p.stat().st_mtime_ns for p in (out / "parts").iterdir()} == parts
