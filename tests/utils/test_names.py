import pytest

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import did_you_mean, lookup

TABLE = {"apple": 1, "pear": 2}


def test_lookup_finds_what_is_there_and_names_what_is_near():
    assert lookup(TABLE, "pear", "fruit") == 2
    with pytest.raises(UserError, match=r"unknown fruit 'appel'; did you mean apple\?"):
        lookup(TABLE, "appel", "fruit")


def test_all_are_named_where_none_is_near():
    assert did_you_mean("zzz", TABLE) == "known: apple, pear"
