import pytest

from nnunetv2_lngswr.utils.epsilon import parse_epsilon


def test_parse_epsilon():
    assert parse_epsilon("8/255") == 8 / 255 and parse_epsilon(" 1e-2") == 0.01
    for bad in ("eight", "1/0", "-1/255", ""):
        with pytest.raises(ValueError, match="epsilon must be"):
            parse_epsilon(bad)
