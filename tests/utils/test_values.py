from nnunetv2_lngswr.utils.values import SHOWN_AT_MOST, shown


def test_any_value_is_one_short_line():
    for value in (0, "a\nb", "x" * 10**5, 10**5000, [10**5000], {"a": [1, 2]}, None, object()):
        assert 0 < len(shown(value)) <= SHOWN_AT_MOST and "\n" not in shown(value)
    assert [shown(v) for v in (3, "3", None)] == ["3", "'3'", "None"]
