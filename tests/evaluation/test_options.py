"""Settings: exact budgets, old names, and the record that OUT folders hold."""

import dataclasses
from fractions import Fraction

import pytest

from evaluation import robust
from evaluation.options import Options, with_new_names
from nnunetv2_lngswr.utils.epsilon import budget_text
from tests.evaluation.tiny import run, without_torch


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
    given = Options(corruptions=["gamma"], steps_of={"ssah": 3}, seed=2)
    record = given.record()
    assert record["shifts"] == ["gamma"] and "corruptions" not in record
    assert list(record)[7:10] == ["seed", "shifts", "surrogate"]  # its place too
    assert Options.from_record(record) == given


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


def test_settings_are_validated_without_torch():
    done = without_torch("from evaluation.options import Options; Options(epsilons=[8])")
    assert done.returncode == 1 and "did you mean 8/255?" in done.stderr
