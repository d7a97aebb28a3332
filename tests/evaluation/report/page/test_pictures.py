"""Which pictures a page has, and that they are those of the parts."""

import base64
import shutil
import zlib

import numpy as np
import pytest

from evaluation.report.cases_table import read_cases
from evaluation.report.page import pictures
from evaluation.rows import MEAN_LABEL
from tests.evaluation.report.page.pages import make_example, make_out


def test_pictures_are_rationed_evenly_from_the_hardest_hit_to_the_least(tmp_path):
    names = [f"case{i}" for i in range(9)]
    out = make_out(tmp_path / "out", cases=names)
    rows = read_cases(out / "cases.csv")
    every = pictures.read_pictures([out], rows)
    assert [p["case"] for p in every] == names  # each is better than the one before
    sizes = [len(p["data"]) for p in every]
    some = pictures.read_pictures([out], rows, most=sum(sizes[i] for i in (0, 4, 8)) + 1)
    assert [p["case"] for p in some] == ["case0", "case4", "case8"]
    assert pictures.read_pictures([out], rows, most=1) == [every[0]]


def test_models_side_by_side_show_the_cases_that_the_baselines_ranks_choose(tmp_path):
    names = [f"case{i}" for i in range(9)]
    # what hits the one hardest hits the other least, and case3 of the second was lost
    a, b = make_out(tmp_path / "a", cases=names), make_out(tmp_path / "b", cases=names[::-1])
    (b / "parts" / "case3.npz").unlink()
    models = [([out], read_cases(out / "cases.csv")) for out in (a, b)]
    every = pictures.read_side_by_side(models)
    assert [p["case"] for p in every if p["model"] == 0] == names
    assert [p["case"] for p in every if p["model"] == 1] == [n for n in names if n != "case3"]
    sizes = {name: sum(len(p["data"]) for p in every if p["case"] == name) for name in names}
    both = ["case0", "case5", "case8"]  # ends and middle of those that both have
    some = pictures.read_side_by_side(models, most=sum(sizes[name] for name in both) + 1)
    assert [(p["model"], p["case"]) for p in some] == [(m, c) for m in (0, 1) for c in both]
    fewer = pictures.read_side_by_side(models, most=sum(sizes[name] for name in both) - 1)
    assert [p["case"] for p in fewer] == ["case0", "case8"] * 2
    # a folder that was copied without its parts takes none from the others
    shutil.rmtree(a / "parts")
    alone = pictures.read_side_by_side(models)
    assert {p["model"] for p in alone} == {1} and alone[0]["case"] == "case8"


def test_a_comparison_shows_no_attack_that_it_leaves_out(tmp_path):
    out = make_out(tmp_path / "out", cases=("a",))
    rows = read_cases(out / "cases.csv")
    (every,) = pictures.read_pictures([out], rows)
    left = [r for r in rows if (r["attack"], r["epsilon_text"]) != ("pgd_linf", "2/255")]
    (some,) = pictures.read_pictures([out], left)
    assert [a["attack"] for a in some["attacks"]].count("pgd_linf") == 1
    kept = [i for i, a in enumerate(every["attacks"]) if a in some["attacks"]]
    assert len(kept) == len(every["attacks"]) - 1
    expected = planes_of(every)[[0, 1, 2, *(3 + 2 * i + of for i in kept for of in (0, 1))]]
    np.testing.assert_array_equal(planes_of(some), expected)


def test_the_dice_beside_a_picture_is_of_the_training_it_is_of(tmp_path):
    first, again = (make_out(tmp_path / n, cases=("a",), gain=g) for n, g in (("a", 0), ("b", 0.1)))
    rows = [r for out in (first, again) for r in read_cases(out / "cases.csv")]
    (found,) = pictures.read_pictures([first, again], rows)
    own = {
        (r["attack"], r["epsilon_text"]): r["dice"]
        for r in read_cases(first / "cases.csv")
        if r["label"] == MEAN_LABEL
    }
    assert found["dice"] == pytest.approx(own["clean", ""])
    shown = {(a["attack"], a["epsilon_text"]): a["dice"] for a in found["attacks"]}
    assert shown == pytest.approx({key: own[key] for key in shown})


def planes_of(picture):
    raw = zlib.decompress(base64.b64decode(picture["data"]))
    return np.frombuffer(raw, np.uint8).reshape(-1, *picture["shape"])


def test_pictures_come_back(tmp_path):
    out = make_out(tmp_path / "out", cases=("a",))
    (found,) = pictures.read_pictures([out], read_cases(out / "cases.csv"))
    stack = make_example()["stack"]
    planes = np.frombuffer(zlib.decompress(base64.b64decode(found["data"])), np.uint8)
    assert found["shape"] == list(stack.shape[1:]) and len(planes) == stack.size
    assert np.array_equal(planes.reshape(stack.shape)[1:3], stack[1:3])
    assert found["names"] == ["label 0", "name 1", "label 2"] and len(found["attacks"]) == 5
