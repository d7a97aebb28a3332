import os
from pathlib import Path

import pytest

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import did_you_mean, is_utf8, lookup, refuse_no_utf8

TABLE = {"apple": 1, "pear": 2}


def test_lookup_finds_what_is_there_and_names_what_is_near():
    assert lookup(TABLE, "pear", "fruit") == 2
    with pytest.raises(UserError, match=r"unknown fruit 'appel'; did you mean apple\?"):
        lookup(TABLE, "appel", "fruit")


def test_names_that_commas_join_are_told_apart_by_spaces():
    with pytest.raises(UserError, match="'apple,pear'; separate several by spaces, not commas$"):
        lookup(TABLE, "apple,pear", "fruit")


def test_all_are_named_where_none_is_near():
    assert did_you_mean("zzz", TABLE) == "known: apple, pear"


def test_names_that_are_no_utf8_are_refused_in_letters_that_can_be_written():
    assert is_utf8("ü 影像 (1)") and is_utf8(Path("x")) and not is_utf8(os.fsdecode(b"c\xff"))
    refuse_no_utf8("ü")
    with pytest.raises(UserError, match=r"^'a/c\\udcff' has a name that is no UTF-8") as refused:
        refuse_no_utf8(Path("a", os.fsdecode(b"c\xff")))
    assert str(refused.value).isascii()
