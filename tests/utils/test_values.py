import numpy as np

from nnunetv2_lngswr.utils.values import SHOWN_AT_MOST, is_number, shown


def test_any_value_is_one_short_line():
    for value in (0, "a\nb", "x" * 10**5, 10**5000, [10**5000], {"a": [1, 2]}, None, object()):
        assert 0 < len(shown(value)) <= SHOWN_AT_MOST and "\n" not in shown(value)
    assert [shown(v) for v in (3, "3", None)] == ["3", "'3'", "None"]


def test_numbers_are_finite_and_what_a_float_holds():
    assert all(map(is_number, (0, -1.5, np.float32(2), np.int64(3))))
    assert not any(map(is_number, (True, "1", None, [1], 1j, np.nan, -np.inf, 10**400)))
