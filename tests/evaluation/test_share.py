"""Which cases are this call's."""

import pytest

from evaluation.share import find_share
from nnunetv2_lngswr.utils.errors import UserError


def ranks(monkeypatch, **values):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_arguments_or_torchrun(monkeypatch):
    ranks(monkeypatch)
    assert find_share(None, None) == (1, 0) and find_share(3, None) == (3, 0)
    assert find_share(3, 2) == (3, 2)
    ranks(monkeypatch, WORLD_SIZE="4", RANK="3")
    assert find_share(None, None) == (4, 3)
    with pytest.raises(UserError, match="both divide the cases"):
        find_share(3, 2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"WORLD_SIZE": "0"}, "got WORLD_SIZE=0 and RANK=0"),
        ({"WORLD_SIZE": "-2"}, "got WORLD_SIZE=-2"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "got WORLD_SIZE=2 and RANK=2"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK=-1"),
        ({"RANK": "1"}, "WORLD_SIZE=1 and RANK=1"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a number, as torchrun sets it, got 'two'"),
        ({"WORLD_SIZE": ""}, "got ''"),
        ({"WORLD_SIZE": "2", "RANK": "²"}, "RANK must be a number.*got '²'"),
    ],
)
def test_ranks_that_torchrun_never_sets_are_refused(values, said, monkeypatch):
    ranks(monkeypatch, **values)
    with pytest.raises(UserError, match=said) as refused:
        find_share(None, None)
    assert "unset" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(("count", "part"), [(0, 0), (-1, 0), ("2", 0), (2, 2), (2, -1), (2, "1")])
def test_parts_out_of_range_are_refused(count, part, monkeypatch):
    ranks(monkeypatch)
    with pytest.raises(UserError, match=f"got {count if part == 0 else part}"):
        find_share(count, part)
