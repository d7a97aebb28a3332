"""Budgets: exact, back as written, and refused in time whatever is written."""

from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnunetv2_lngswr.utils.epsilon import LEAST, MOST, budget_text, parse_budget, parse_epsilon
from nnunetv2_lngswr.utils.errors import UserError

small = settings(max_examples=60, deadline=None, derandomize=True)


def test_parse_epsilon():
    assert parse_epsilon("8/255") == 8 / 255 and parse_epsilon(" 1e-2") == 0.01
    for bad in ("eight", "1/0", "-1/255", ""):
        with pytest.raises(ValueError, match="epsilon must be"):
            parse_epsilon(bad)


TEXTS = ("8/255", "0.25/255", "1/255", "0.03", "0", "255/255", "4", "2.5", "1020001/255")


@pytest.mark.parametrize("text", TEXTS)
def test_budgets_are_exact_and_come_back_as_written(text):
    budget = parse_budget(text)
    assert budget_text(budget) == text
    assert parse_budget(budget) == budget and float(budget) == parse_epsilon(text)


NOT_WRITTEN_SO = ("1/255/2", "1e400", "1e99999999", "1e-99999999", "1/1e99999999", "=5", "1_0", "٣")
NO_BUDGETS = ("nan", "inf", "-1", "1e10", "1e-40", "9" * 10**6, "0." + "1" * 200, "1/" + "3" * 101)
NO_NUMBERS = (True, None, [], {}, object(), float("nan"), float("inf"), 10**5000)
OTHER_TYPES = (Decimal("1e99999999"), Decimal("nan"), Fraction(1, 3**400), np.float32("nan"))


REFUSED = (*NOT_WRITTEN_SO, *NO_BUDGETS, *NO_NUMBERS, *OTHER_TYPES)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("value", REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_what_is_no_budget_is_refused_in_one_short_line(value):
    with pytest.raises(UserError, match="^epsilon must be .*got .") as caught:
        parse_budget(value)
    assert len(str(caught.value)) < 150 and "\n" not in str(caught.value)


def test_numbers_of_numpy_and_decimals_are_budgets():
    for value in (np.float32(0.5), np.float64(0.5), Decimal("0.5"), Fraction(1, 2), 0.5, "1/2"):
        assert parse_budget(value) == Fraction(1, 2)
    assert parse_budget(np.int64(3)) == 3


@small
@given(st.text() | st.text("0123456789eE+-./= _\n", max_size=30))
@example("1e999/1e999")
def test_any_text_is_a_budget_or_a_users_error(text):
    with suppress(UserError):
        budget = parse_budget(text)
        assert budget == 0 or LEAST <= budget <= MOST


numbers = st.fractions(0, 1000) | st.floats(0, 1e9).filter(lambda v: v == 0 or v > 1e-29)
in_255ths = st.builds(Fraction, st.integers(0, 10**9), st.just(255 * 4))


@small
@given(numbers | in_255ths)
@example(Fraction(255 * 4000 * 4 + 1, 255 * 4))
def test_text_and_budget_go_round(value):
    budget = parse_budget(value)
    text = budget_text(budget)
    assert parse_budget(text) == pytest.approx(budget, rel=1e-8)
    assert parse_budget(budget_text(parse_budget(text))) == parse_budget(text)
    if budget and (budget * 255 * 4).denominator == 1:
        assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget  # what workers are told
