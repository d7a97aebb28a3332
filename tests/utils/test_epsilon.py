import pytest

from nnunetv2_lngswr.utils.epsilon import budget_text, parse_budget, parse_epsilon


def test_parse_epsilon():
    assert parse_epsilon("8/255") == 8 / 255 and parse_epsilon(" 1e-2") == 0.01
    for bad in ("eight", "1/0", "-1/255", ""):
        with pytest.raises(ValueError, match="epsilon must be"):
            parse_epsilon(bad)


@pytest.mark.parametrize("text", ("8/255", "0.25/255", "1/255", "0.03", "0"))
def test_budgets_are_exact_and_come_back_as_written(text):
    budget = parse_budget(text)
    assert budget_text(budget) == text
    assert parse_budget(budget) == budget and float(budget) == parse_epsilon(text)
