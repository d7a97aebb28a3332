"""Settings: exact budgets, old names, and the record that OUT folders hold."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from evaluation import robust, run_case
from evaluation.model.folder import SegmentationModel
from evaluation.model.graph_memory import GRAPH_BYTES
from evaluation.options import LIMITS, Options, with_new_names
from nnunetv2_lngswr.utils.epsilon import budget_text
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.tiny import cases_csv, run, without_torch


def test_budgets_are_exact():
    options = Options(epsilons=["8/255", "1/255"], epsilons_l2=["0.25/255"])
    assert options.epsilons == (Fraction(1, 255), Fraction(8, 255)) and options.epsilons_l2 == (
        Fraction(1, 1020),
    )
    assert [
        budget_text(e)
        for e in (*options.epsilons, *options.epsilons_l2, Fraction("0.03"), Fraction(0))
    ] == ["1/255", "8/255", "0.25/255", "0.03", "0"]
    assert options.record()["epsilons"] == ["1/255", "8/255"]


def test_a_record_keeps_the_names_of_all_versions():
    given = Options(attacks=["ssah"], corruptions=["gamma"], steps_of={"ssah": 3}, seed=2)
    record = given.record()
    assert record["shifts"] == ["gamma"] and "corruptions" not in record
    assert list(record)[7:10] == ["seed", "shifts", "surrogate"]  # its place too
    assert Options.from_record(record) == given


def test_a_temperature_is_in_the_record_where_it_is_given():
    given = Options(attacks=["apgd_dice"], temperature=2)
    assert given.record()["temperature"] == 2.0 and Options.from_record(given.record()) == given
    assert type(given.record()["temperature"]) is float
    assert type(Options(attacks="apgd_dice_l2", temperature=np.float32(0.5)).temperature) is float
    # else folders from before there was one could not be gone on with
    assert "temperature" not in Options().record()
    # beside the suite, which stays as it is
    Options(attacks=["worst", "apgd_dice"], temperature=0.1)


def test_no_attack_is_the_clean_case_alone(world, finished, tmp_path):
    given = Options(attacks="none", corruptions="none")
    assert Options.from_record(given.record()) == given
    options = {"attacks": ["none"], "corruptions": ["none"], "steps": None}
    done = run(world, tmp_path / "out", **options)
    clean = [row for row in finished.rows() if row["kind"] == "clean"]
    assert [row["dice"] for row in done.rows()] == [row["dice"] for row in clean]
    assert [record["kind"] for record in done.summary["results"]] == ["clean"]
    assert "Clean foreground Dice" in (done.folder / "report.md").read_text()
    with pytest.raises(UserError, match="none stands alone among attacks, got none fgsm"):
        run(world, tmp_path / "other", **options | {"attacks": ["none", "fgsm"]})


def test_an_old_name_is_taken_and_said_once():
    with pytest.warns(FutureWarning, match="shifts is now called corruptions") as said:
        assert with_new_names({"shifts": ["gamma"], "seed": 1}) == {
            "corruptions": ["gamma"],
            "seed": 1,
        }
    assert len(said) == 1
    with pytest.raises(ValueError, match="shifts is the old name of corruptions"):
        with_new_names({"shifts": [], "corruptions": []})


def test_evaluate_and_estimate_take_the_old_name(world, tmp_path):
    small = {"attacks": ["noise"], "epsilons": ["4/255"], "steps": None, "max_cases": 1}
    with pytest.warns(FutureWarning, match="corruptions"):
        estimated = robust.estimate(
            world[0], images=world[1], labels=world[2], device="cpu", shifts=["gamma"]
        )
    assert "gamma 5" in estimated["runs"] and "contrast 1" not in estimated["runs"]
    quick = {"images": world[1], "labels": world[2], "device": "cpu", "progress": False, **small}
    with pytest.warns(FutureWarning, match="corruptions"):
        by_old_name = robust.evaluate(world[0], tmp_path / "out", shifts=["none"], **quick)
    # the folder is gone on with
    part = next((tmp_path / "out" / "parts").glob("*.json"))
    written = part.stat().st_mtime_ns
    assert run(world, tmp_path / "out", corruptions=["none"], **small).finished
    assert part.stat().st_mtime_ns == written
    assert by_old_name.summary["options"]["shifts"] == ["none"]


def test_memory_for_graphs_changes_no_result_so_a_folder_goes_on_with_another(world, tmp_path):
    small = {"attacks": ["fgsm"], "epsilons": ["4/255"], "corruptions": [], "max_cases": 1}
    settings, rows = [], []
    for memory in (0, 1):
        folder = run(world, tmp_path / str(memory), graph_memory=memory, **small).folder
        settings.append((folder / "settings.json").read_bytes())
        rows.append(cases_csv(folder))
    assert settings[0] == settings[1] and rows[0] == rows[1]


def test_memory_for_graphs_reaches_the_sliding_window(world):
    model = SegmentationModel.from_folder(world[0])
    for options, expected in ((Options(), GRAPH_BYTES), (Options(graph_memory=3), 3 * 2**20)):
        assert run_case.sliding_window(model, options).graph_bytes == expected


def test_every_setting_has_a_docstring():
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(Options))).body[0].body
    described = {
        a.target.id
        for a, text in zip(body, body[1:])
        if isinstance(a, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    assert described == {f.name for f in dataclasses.fields(Options)}


NAN, INF = float("nan"), float("inf")
MANY = 10**22
WRONG = {
    "steps": (True, 2.5, "5", 0, MANY, 10**5000, [3]),
    "restarts": (True, "2", MANY, NAN),
    "temperature": (True, "1", 0, -1, 0.0, NAN, INF, -INF, 10**5000, [0.1]),
    "max_cases": (True, "3", 0, MANY),
    "seed": (None, True, "0", 1.5, -1, 2**128),
    "window_batch_size": (True, 0, MANY),
    "graph_memory": (None, True, -1, 0.5, MANY),
    "tile_step_size": (True, "0.5", None, NAN, INF, 0, 1e-9, 0.049),
    "nsd_tolerance": (True, "2", None, NAN, INF, -1),
    "epsilons": (True, object(), [None], [[1]], {"a": 1}, "x", ["1/255/2"], ["=5"], [NAN], "1e400"),
    "epsilons_l2": ([0.1234567891, 0.1234567892], [INF], "1e99999999", b"1/255"),
    "epsilon_unit": (None, 3, []),
    "attacks": (None, 3, [3], [None], [["pgd_linf"]]),
    "corruptions": (None, 3, [3], [b"gamma"]),
    "steps_of": (None, 5, "abc", {3: 1}, {"noise": True}, {"noise": "1"}, {"noise": MANY}),
    "folds": ("first", "\u00b2", "\u0663", [None], [1.5], [True], [-1], {"a": 1}, 3.5, "9" * 23),
    "checkpoint": (None, 3, ""),
    "device": (3, ["cpu"]),
    "groups": (3, 10**5000, True, "", ["p"], b"p"),
    "surrogate": (5, ["a"]),
    "use_mirroring": ("no", 0, None),
    "autocast": ("false",),
    "save_adversarial": (1,),
    "trust_checkpoint": ("no",),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("option", WRONG)
def test_values_of_another_type_or_without_end_are_refused_by_evaluate(option, tmp_path):
    for value in WRONG[option]:
        with pytest.raises(UserError, match="must be|must differ|did you mean|not among") as caught:
            robust.evaluate(tmp_path / "model", tmp_path / "out", **{option: value})
        said = str(caught.value)
        assert len(said) < 200 and "\n" not in said and not (tmp_path / "out").exists()


def test_every_option_is_tried_with_wrong_values():
    assert WRONG.keys() == {f.name for f in dataclasses.fields(Options)}


def test_the_bounds_themselves_are_taken():
    for least_or_most in (0, 1):
        limits_there = {name: limits[least_or_most] for name, limits in LIMITS.items()}
        Options(attacks=["apgd_dice"], **limits_there)
    for step in (0.05, 1):
        Options(tile_step_size=step, nsd_tolerance=0, folds=[0, "1", "all"])
    for wrong in (True, 0, "2", 10**22):
        with pytest.raises(UserError, match="workers must be"):
            robust.evaluate("model", "out", workers=wrong)


def test_numbers_of_numpy_are_recorded_as_pythons():
    options = Options(tile_step_size=np.float32(0.25), nsd_tolerance=np.float32(2))
    assert {type(options.record()[k]) for k in ("tile_step_size", "nsd_tolerance")} == {float}


def test_settings_are_validated_without_torch():
    done = without_torch("from evaluation.options import Options; Options(epsilons=[8])")
    assert done.returncode == 1 and "did you mean 8/255?" in done.stderr
