"""Which cases belong together, such as the slices of one patient: parsed once, a group per case.

Cases of one group are not independent, so intervals and tests draw and swap whole groups. Groups
come from `--groups`, from what a conversion recorded of the patients, or from OUT folders that hold
them; they are never guessed, and every report says which were used and how they were found.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.groups import groups_by_csv, groups_by_pattern
from nnunetv2_lngswr.utils.names import some_names
from nnunetv2_lngswr.utils.option_types import given_text
from nnunetv2_lngswr.utils.values import shown

if TYPE_CHECKING:
    import numpy as np

OPTION = "--groups"
MANIFEST = "manifest.json"
"""What a conversion leaves beside dataset.json."""

Given = str | Path | Mapping[str, str]
"""A regular expression, a CSV file, or the groups themselves: {case: group}."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """A group for every case."""

    of: Mapping[str, str]
    """{case: group}, at least for the cases that are reported."""
    found: str
    """How they were found, for the report."""

    def numbers(self, cases: Sequence[str]) -> np.ndarray:
        """(cases,): the number of each case's group, from 0, in the order of the cases."""
        # not at the top: a benchmark checks its groups without NumPy
        import numpy as np

        number: dict[str, int] = {}
        return np.array([number.setdefault(self.of[c], len(number)) for c in cases], np.int64)

    def count(self, cases: Iterable[str]) -> int:
        """How many groups these cases are of."""
        return len({self.of[case] for case in cases})

    def said(self, cases: Sequence[str]) -> str:
        """'40 cases of 18 groups (HOW)', as reports have it."""
        count = self.count(cases)
        groups = f"{count} group{'s' if count != 1 else ''}"
        return f"{len(cases)} case{'s' if len(cases) != 1 else ''} of {groups} ({self.found})"

    def record(self, cases: Sequence[str]) -> dict[str, Any]:
        """JSON-ready, of these cases."""
        return {
            "found": self.found,
            "count": self.count(cases),
            "of": {case: self.of[case] for case in cases},
        }


def add_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup, default: str) -> None:
    """Add --groups; `default` says what is taken without it."""
    parser.add_argument(
        OPTION,
        type=given_text,
        metavar="PATTERN|CSV",
        help="what intervals draw as one, such as a patient's slices: what a regular expression "
        f"finds in case names, or a table of case, patient; default: {default}",
    )


def parse_groups(given: Given, cases: Sequence[str]) -> Groups:
    """Groups that were given.

    Parameters
    ----------
    given
        A CSV file with the columns `case` and `patient` (a Path, or a text that ends in .csv or
        names a file); a regular expression, which finds the group in each case's name, as in
        `lngswr splits`; or {case: group}.
    cases
        The names that need a group.

    Raises
    ------
    UserError
        No such file, no such column, a bad pattern, a case without a group or with two, and groups
        that are one for all cases.
    """
    if isinstance(given, Mapping):
        groups = Groups(of=_checked(given, cases), found="as given")
    elif is_table(given):
        found = f"table {Path(given).name}, {OPTION}"
        groups = Groups(of=groups_by_csv(cases, given, option=OPTION), found=found)
    else:
        found = f"pattern {given}, {OPTION}"
        groups = Groups(of=groups_by_pattern(cases, str(given), option=OPTION), found=found)
    if len(cases) > 1 and groups.count(cases) == 1:
        raise UserError(
            f"all {len(cases)} cases are of one group, {groups.of[cases[0]]!r}: nothing can be "
            f"drawn from that; tell the patients apart ({OPTION})"
        )
    return groups


def is_table(given: str | Path) -> bool:
    """Whether it is a CSV file, and no pattern."""
    if isinstance(given, Path) or given.lower().endswith(".csv"):
        return True
    try:
        return Path(given).is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False


def recorded_groups(folder: Path, cases: Sequence[str]) -> Groups | None:
    """Groups that a conversion recorded in a raw data set's manifest.json.

    None where nothing is known: no manifest, or not one of a conversion, or cases that it does not
    have. What cases that are each a group of their own are known by counts too, once they are
    joined with others (`common_groups`).
    """
    file = folder / MANIFEST
    if not file.is_file():
        return None
    try:
        units = read_json(file, needs=("settings", "units"))["units"]
        entries = [entry for unit in units.values() for entry in unit["entries"]]
        recorded = {e["case"]: e["group"] for e in entries if e.get("case") and e.get("group")}
    except (UserError, AttributeError, KeyError, TypeError):
        return None
    if not all(isinstance(recorded.get(case), str) for case in cases):
        return None
    return Groups(of=recorded, found=f"recorded by the conversion in {MANIFEST}")


def common_groups(
    records: Iterable[tuple[str, Mapping[str, Any] | None]], cases: Sequence[str]
) -> Groups | None:
    """Groups that OUT folders hold; None where they do not tell those of all cases.

    Parameters
    ----------
    records
        Of each folder: its name for messages, and what `Groups.record` gave, if anything.
    cases
        The names that need a group.

    Raises
    ------
    UserError
        A record is damaged, or two disagree on what belongs together.
    """
    known = [(name, record, _of(name, record)) for name, record in records if record is not None]
    if not known:
        return None
    first, *others = known
    of = dict(first[2])
    for name, _, its in others:
        both = [case for case in cases if case in of and case in its]
        if not _same_partition([of[c] for c in both], [its[c] for c in both]):
            raise UserError(
                f"{first[0]} and {name} were reported with other groups: give those to use "
                f"({OPTION})"
            )
        # names of groups may differ; what was read first decides where both have a case
        of = {**its, **of}
    if not all(case in of for case in cases):
        return None
    found = dict.fromkeys(str(record.get("found")) for _, record, _ in known)
    return Groups(of=of, found="; ".join(found))


def _of(name: str, record: Any) -> Mapping[str, str]:
    of = record.get("of") if isinstance(record, Mapping) else None
    if not isinstance(of, Mapping) or not all(isinstance(g, str) for g in of.values()):
        raise UserError(f"{name}: groups are damaged, got {shown(record)}; evaluate it again")
    return of


def _same_partition(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists of groups put the same cases together."""
    return len(set(zip(one, other))) == len(set(one)) == len(set(other))


def _checked(given: Mapping[str, str], cases: Sequence[str]) -> Mapping[str, str]:
    without = sorted(set(cases) - given.keys())
    if without:
        raise UserError(f"groups have nothing for {some_names(without)}: give a group to each")
    wrong = [given[case] for case in cases if not (isinstance(given[case], str) and given[case])]
    if wrong:
        raise UserError(f"groups must be {{case: group}}, texts, got {shown(wrong[0])}")
    return given
