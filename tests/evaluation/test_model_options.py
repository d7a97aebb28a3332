"""The model by data set, configuration, trainer and plans, as nnU-Net's own command finds it."""

import shutil
from pathlib import Path

import pytest
from nnunetv2.utilities.file_path_utilities import get_output_folder

from evaluation import robust
from evaluation.command_line import parse
from evaluation.model_options import take_model_folder
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.tiny import cases_csv, command

NAMES = ("nnUNetTrainer__nnUNetPlans__2d", "nnUNetTrainerLNGSWR__myPlans__3d_fullres")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """nnUNet_results with two models of one data set, and one of another."""
    folder = tmp_path / "results"
    for name in NAMES:
        (folder / "Dataset007_Balls" / name).mkdir(parents=True)
    (folder / "Dataset070_Cubes" / NAMES[0]).mkdir(parents=True)
    monkeypatch.setenv("nnUNet_results", str(folder))
    return folder


def chosen(*words):
    return take_model_folder(parse([*words, "-o", "OUT"]))


@pytest.mark.parametrize("dataset", ["7", "007", "0007", "Dataset007_Balls"])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_folder_that_nnunet_names(dataset, name, results):
    trainer, plans, configuration = name.split("__")
    found = chosen("-d", dataset, "-c", configuration, "-tr", trainer, "-p", plans)
    assert found == Path(get_output_folder(dataset, trainer, plans, configuration))
    assert found == results / "Dataset007_Balls" / name


def test_trainer_and_plans_are_nnunets_by_default(results):
    assert chosen("-d", "70", "-c", "2d") == Path(get_output_folder("70", configuration="2d"))


def test_a_folder_is_taken_as_it_is():
    assert chosen("-m", "MODEL") == Path("MODEL")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-m MODEL -c 2d -tr T", "-m names the whole model; -c, -tr can stand beside -d alone"),
        ("-d 7", "-d needs -c"),
        ("-d 8 -c 2d", "has no data set '8': Dataset007_Balls, Dataset070_Cubes"),
        ("-d Balls -c 2d", "has no data set 'Balls': Dataset007_Balls"),
        ("-d 7 -c 3d_fullres", f"models there: {', '.join(sorted(NAMES))}"),
    ],
)
def test_what_names_no_model_is_refused(words, said, results):
    with pytest.raises(UserError) as refused:
        chosen(*words.split())
    assert said in str(refused.value)


def test_a_number_of_two_data_sets_is_refused(results):
    (results / "Dataset007_Bowls").mkdir()
    with pytest.raises(
        UserError, match="several data sets '7': Dataset007_Balls, Dataset007_Bowls"
    ):
        chosen("-d", "7", "-c", "2d")
    assert chosen("-d", "Dataset007_Balls", "-c", "2d").parent.name == "Dataset007_Balls"


def test_without_nnunets_folder_it_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("nnUNet_results", raising=False)
    with pytest.raises(UserError, match="needs the environment variable nnUNet_results"):
        chosen("-d", "7", "-c", "2d")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "none"))
    with pytest.raises(UserError, match="cannot be read"):
        chosen("-d", "7", "-c", "2d")


def test_neither_and_both_are_refused(capsys):
    for words in ([], ["-m", "MODEL", "-d", "7"]):
        with pytest.raises(SystemExit) as end:
            parse([*words, "-o", "OUT"])
        said = capsys.readouterr().err
        assert end.value.code == 2 and "(-m MODEL_FOLDER | -d DATASET)" in said
        assert "-m" in said.splitlines()[-1]


def test_both_ways_evaluate_the_same_model(world, results, tmp_path):
    folder = Path(world[0])
    shutil.copytree(folder, results / "Dataset007_Balls" / "T__P__2d")
    words = ["--attacks", "noise", "--epsilons", "4/255", "--epsilons-l2", "none"]
    words += ["--corruptions", "none", "--max-cases", "1", "--disable_progress_bar"]
    by_folder = command(world, tmp_path / "a", *words)
    assert robust.main(by_folder) == 0
    by_dataset = command(world, tmp_path / "b", *words)
    at = by_dataset.index("-m")
    by_dataset[at : at + 2] = ["-d", "7", "-c", "2d", "-tr", "T", "-p", "P"]
    assert robust.main(by_dataset) == 0
    assert cases_csv(tmp_path / "a") == cases_csv(tmp_path / "b")
