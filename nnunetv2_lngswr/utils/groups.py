"""What belongs together, such as a patient's images: told by the cases' names, or by a table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import some_names
from nnunetv2_lngswr.utils.tables import read_rows


def compiled(pattern: str, what: str = "pattern") -> re.Pattern[str]:
    """The regular expression `pattern`; UserError, naming it as `what`, if it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{what} {pattern!r} is no regular expression: {error}") from None


def groups_by_pattern(
    cases: Iterable[str], pattern: str, *, option: str = "--pattern"
) -> dict[str, str]:
    """case -> group: what the regular expression `pattern` finds in the case's name.

    That is its capture groups, or the whole match if it has none; what is empty is nothing.
    `option` is what messages name.

    Raises
    ------
    UserError
        A bad pattern, or cases in which it finds nothing.
    """
    expression = compiled(pattern)
    groups: dict[str, str] = {}
    without: list[str] = []
    for case in cases:
        match = expression.search(case)
        found = [] if match is None else [part or "" for part in match.groups() or (match.group(),)]
        if any(found):
            groups[case] = "|".join(found)
        else:
            without.append(case)
    if without:
        raise UserError(
            f"pattern {pattern!r} finds no group in {some_names(sorted(without))}: it must find "
            f"one in every case's name ({option})"
        )
    return groups


def groups_by_csv(
    cases: Iterable[str],
    path: str | Path,
    case_column: str = "case",
    group_column: str = "patient",
    *,
    option: str = "--csv",
) -> dict[str, str]:
    """case -> group, from a CSV file with a header; rows of other cases do no harm.

    `option` is what messages name.

    Raises
    ------
    UserError
        No such file, missing columns, cases without a row, cases with two groups.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist ({option})")
    groups: dict[str, str] = {}
    for case, group in read_rows(path, (case_column, group_column)):
        if not group:
            raise UserError(f"{path}: {case} has no {group_column}: fill it in ({option})")
        if groups.setdefault(case, group) != group:
            raise UserError(
                f"{path}: {case} has two groups, {groups[case]} and {group}: keep one ({option})"
            )
    cases = list(cases)
    without = sorted(set(cases) - groups.keys())
    if without:
        raise UserError(f"{path} has no row for {some_names(without)}: add them ({option})")
    return {case: groups[case] for case in cases}
