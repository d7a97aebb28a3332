"""Laws of a call of `lngswr score` that was ended: what is scored is kept, and gone on with."""

import os
import pickle
from threading import Thread

import numpy as np
import pytest

from evaluation.score import score_predictions
from evaluation.scoring import run
from evaluation.scoring.score_case import CaseScorer
from nnunetv2_lngswr.cli.main import main
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.locks import hold
from tests.evaluation.scoring.files import (
    CASES,
    LABELS,
    PATTERN,
    REGIONS,
    truth,
    write_description,
    write_image,
    write_labels,
    write_model,
)

OUTPUTS = ("cases.csv", "summary.json", "report.md", "report.html")


@pytest.fixture(params=["labels", "regions", "undescribed"])
def world(request, tmp_path):
    """Labels and two models; a case without anything, whose measures are nan."""
    return make_world(tmp_path, request.param)


@pytest.fixture
def labelled(tmp_path):
    return make_world(tmp_path, "labels")


def make_world(root, kind):
    regions = kind == "regions"
    write_labels(root / "labels", ignore=regions)
    for name, noise in (("a", 1.5), ("b", 1.9)):
        write_model(root / name, noise=noise, npz=True, regions=regions)
        write_image(root / name / f"{CASES[0]}.nii.gz", np.zeros_like(truth(0)))
        nothing = np.zeros((2 if regions else 3, *truth(0).shape), np.float32)
        nothing[0] = 0 if regions else 1
        np.savez_compressed(root / name / f"{CASES[0]}.npz", probabilities=nothing)
    write_image(root / "labels" / f"{CASES[0]}.nii.gz", np.zeros_like(truth(0)))
    if kind != "undescribed":
        labels, order = (REGIONS, [1, 2]) if regions else (LABELS, None)
        write_description(root / "dataset.json", labels, order)
    return root


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    for name in ("draw_scores", "draw_reliability"):
        monkeypatch.setattr(run, name, lambda path, *of: path.write_text("a picture"))


@pytest.fixture
def scored(monkeypatch):
    """The cases that are scored, in order; `scored.end[n] = error` raises it in place of the
    n-th."""

    class Scored(list):
        pass

    found = Scored()
    found.end = {}
    score = CaseScorer.__call__

    def recorded(self, files):
        if len(found) in found.end:
            raise found.end[len(found)]
        found.append(files.identifier)
        return score(self, files)

    monkeypatch.setattr(CaseScorer, "__call__", recorded)
    return found


def score(root, *models, out="out", **options):
    described = root / "dataset.json"
    if described.exists():
        options.setdefault("dataset_json", described)
    folders = [root / m for m in models or ("a", "b")]
    return score_predictions(
        folders, root / "labels", root / out, **{"processes": 1, "probabilities": True, **options}
    )


def interrupt(root, scored, *models, after=3, error=KeyboardInterrupt, **options):
    scored.clear()
    scored.end[after] = error() if isinstance(error, type) else error
    with pytest.raises(BaseException) as raised:
        score(root, *models, **options)
    assert raised.value is scored.end.pop(after)
    scored.clear()


def written(root, out="out"):
    return {name: (root / out / name).read_bytes() for name in OUTPUTS}


def names(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def test_the_same_call_goes_on_and_ends_with_the_same_bytes(world, scored):
    score(world, out="whole")
    interrupt(world, scored)
    assert names(world / "out") == ["unfinished"]
    interrupt(world, scored, after=1)
    score(world)
    assert scored == list(CASES[4:])
    assert written(world) == written(world, "whole")
    assert names(world / "out") == names(world / "whole")
    assert "unfinished" not in names(world / "out")


def test_what_goes_to_other_processes_keeps_cases_too(labelled, scored, monkeypatch):
    score(labelled, out="whole")

    def sent(function, jobs, **options):
        return [pickle.loads(pickle.dumps(function))(job) for job in jobs]

    monkeypatch.setattr(run, "run_jobs", sent)
    interrupt(labelled, scored)
    assert len(names(labelled / "out/unfinished/cases")) == 3
    score(labelled)
    assert scored == list(CASES[3:])
    assert written(labelled) == written(labelled, "whole")


def test_the_command_says_what_is_true(labelled, scored, capsys):
    words = ["score", "-p", f"{labelled}/a", "-l", f"{labelled}/labels", "-o", f"{labelled}/out"]
    scored.end[2] = KeyboardInterrupt()
    assert main([*words, "-np", "1"]) == 130
    assert "what is done is kept: the same call goes on" in capsys.readouterr().err
    assert main([*words, "-np", "1", "--tolerance", "3"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for text in ("out holds 2 scored cases", "options.tolerance_mm: was 2.0, is 3.0", "-o"):
        assert text in said
    # how many processes, names, patients and the seed change no score
    more = ["-np", "2", "--names", "x", "--groups", PATTERN, "--seed", "5"]
    scored.clear()
    scored.end.clear()
    assert main([*words, *more[2:], "-np", "1"]) == 0
    assert scored == list(CASES[2:])


@pytest.mark.parametrize(
    "models, other, says",
    [
        ("ab", {"lesion_iou": 0.2}, "options.lesion_iou: was 0.1, is 0.2"),
        ("ab", {"probabilities": False}, "options.probabilities: was true, is false"),
        ("ba", {}, "models: was"),
        ("a", {}, "models: was"),
        ("ab", {"dataset_json": None}, "dataset_json: was"),
    ],
)
def test_a_call_with_other_arguments_is_refused_or_begins_anew(
    labelled, scored, models, other, says
):
    interrupt(labelled, scored)
    before = {p: p.read_bytes() for p in labelled.rglob("*.json")}
    with pytest.raises(UserError, match=f"3 scored cases .*{says}.*--overwrite"):
        score(labelled, *models, **other)
    assert {p: p.read_bytes() for p in labelled.rglob("*.json")} == before and not scored
    score(labelled, *models, overwrite=True, **other)
    assert scored == list(CASES)
    score(labelled, *models, out="whole", **other)
    assert written(labelled) == written(labelled, "whole")


def test_a_dataset_json_that_was_changed_is_another_argument(labelled, scored):
    interrupt(labelled, scored)
    write_description(labelled / "dataset.json", {**LABELS, "more": 3})
    with pytest.raises(UserError, match="dataset_json: was"):
        score(labelled)


@pytest.mark.parametrize("file", [f"labels/{CASES[1]}.nii.gz", f"b/{CASES[1]}.npz"])
def test_a_case_whose_files_have_changed_is_scored_again(labelled, scored, file):
    interrupt(labelled, scored)
    path = labelled / file
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    score(labelled)
    assert scored == [CASES[1], *CASES[3:]]


def test_a_bad_file_costs_no_scored_case(labelled, scored):
    """However late it comes; before the first case it leaves nothing."""
    bad, good = labelled / f"b/{CASES[3]}.nii.gz", (labelled / f"b/{CASES[3]}.nii.gz").read_bytes()
    score(labelled, out="whole")
    bad.write_bytes(good[:-20])
    with pytest.raises(UserError, match=rf"{bad}.*; 3 scored cases are kept .* call goes on"):
        score(labelled)
    with pytest.raises(UserError, match="3 scored cases .* call without --overwrite goes on"):
        score(labelled, overwrite=True)
    scored.clear()
    bad.write_bytes(good)
    score(labelled)
    assert scored == list(CASES[3:]) and written(labelled) == written(labelled, "whole")
    scored.clear()
    scored.end[0] = UserError("a bad file")
    with pytest.raises(UserError, match="^a bad file$"):
        score(labelled, out="none")
    assert not (labelled / "none").exists()


def test_an_interrupt_before_the_first_case_leaves_nothing(labelled, scored):
    interrupt(labelled, scored, after=0)
    assert not (labelled / "out").exists()
    (labelled / "out").mkdir()
    interrupt(labelled, scored, after=0)
    assert names(labelled / "out") == []


def test_a_full_disk_while_the_report_is_written_costs_no_scores(labelled, scored, monkeypatch):
    def full(*of):
        raise OSError(28, "No space left on device", "cases.csv")

    with monkeypatch.context() as patched:
        patched.setattr(run, "csv_text", full)
        with pytest.raises(OSError, match="space"):
            score(labelled)
    scored.clear()
    score(labelled)
    assert scored == []


def test_two_calls_at_once_are_refused(labelled, scored):
    with hold(labelled / "out", "another call"):
        error = []

        def other():
            try:
                score(labelled)
            except UserError as raised:
                error.append(str(raised))

        thread = Thread(target=other)
        thread.start()
        thread.join()
    assert "is in use by another call" in error[0] and not scored
