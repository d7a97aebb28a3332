"""Groups: given by pattern, table or mapping, recorded by a conversion or an OUT folder."""

import json

import pytest

from evaluation.groups import Groups, common_groups, parse_groups, recorded_groups
from nnunetv2_lngswr.datasets.conversion import Entry, Unit, convert
from nnunetv2_lngswr.datasets.options import DatasetSpec
from nnunetv2_lngswr.utils.errors import UserError

CASES = ["p1_a", "p1_b", "p2_a"]
PATIENTS = {"p1_a": "p1", "p1_b": "p1", "p2_a": "p2"}


def test_a_pattern_a_table_and_a_mapping_give_the_same_groups(tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("patient,case\n" + "".join(f"{g},{c}\n" for c, g in PATIENTS.items()))
    for given in (r"^p\d", table, str(table), PATIENTS):
        groups = parse_groups(given, CASES)
        assert groups.of == PATIENTS
        assert groups.numbers(CASES).tolist() == [0, 0, 1] and groups.count(CASES) == 2
        assert groups.record(CASES)["of"] == PATIENTS
    assert parse_groups(r"^p\d", CASES).said(CASES) == (
        r"3 cases of 2 groups (pattern ^p\d, --groups)"
    )
    assert "patients.csv" in parse_groups(table, CASES).found


@pytest.mark.parametrize(
    "given, said",
    [
        ("x", "pattern 'x' finds no group in p1_a, p1_b, p2_a: it must find one in every case"),
        ("_b", "finds no group in p1_a, p2_a"),
        ("(", "no regular expression"),
        ("p", "all 3 cases are of one group, 'p'"),
        ("missing.csv", r"missing.csv does not exist \(--groups\)"),
        ({"p1_a": "1"}, "nothing for p1_b, p2_a"),
        ({**PATIENTS, "p2_a": 2}, "must be {case: group}, texts, got 2"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(given, said):
    with pytest.raises(UserError, match=said) as refused:
        parse_groups(given, CASES)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("case,patient\np1_a,1\np1_b,1\n", "has no row for p2_a: add them"),
        ("case,patient\np1_a,1\np1_b,1\np2_a,2\np1_a,2\n", "p1_a has two groups, 1 and 2"),
        ("case,group\n", "has no column patient"),
    ],
)
def test_what_is_wrong_in_a_table_is_said(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        parse_groups(tmp_path / "t.csv", CASES)


def converted(raw, groups):
    """A data set as `lngswr convert-dataset` leaves it."""

    def write(case, group):
        def unit(folder, taken):
            for name in (f"imagesTr/{case}_0000.png", f"labelsTr/{case}.png"):
                (folder / name).write_bytes(b"")
            return [Entry(source=case, status="used", case=case, group=group)]

        return unit

    units = [Unit(key=c, files=[], convert=write(c, g)) for c, g in groups.items()]
    spec = DatasetSpec(
        dataset_id=7, name="Tiny", channel="x", label="y", file_ending=".png", folds=2
    )
    return convert(raw, spec, units, settings={}, progress=False).folder


def test_what_a_conversion_recorded_is_found(tmp_path):
    folder = converted(tmp_path, {**PATIENTS, "p3_a": "p3"})
    groups = recorded_groups(folder, CASES)
    assert groups is not None and "conversion" in groups.found
    assert groups.record(CASES) == {"found": groups.found, "count": 2, "of": PATIENTS}


def test_folds_of_which_one_has_each_patient_once_keep_the_others_together(tmp_path):
    folder = converted(tmp_path, PATIENTS)
    parts = ["p1_a", "p1_b"], ["p2_a"]
    records = [(str(part), recorded_groups(folder, part).record(part)) for part in parts]
    joined = common_groups(records, [*parts[0], *parts[1]])
    assert joined is not None and joined.count(CASES) == 2


def test_nothing_is_guessed(tmp_path):
    folder = converted(tmp_path, PATIENTS)
    assert recorded_groups(folder, [*CASES, "p9"]) is None  # a case that it does not know
    assert recorded_groups(tmp_path, CASES) is None
    for text in ("[]", "{", '{"settings": {}, "units": 3}', json.dumps({"units": {}})):
        (folder / "manifest.json").write_text(text)
        assert recorded_groups(folder, CASES) is None


def test_out_folders_tell_their_groups_and_must_agree():
    record = Groups(of=PATIENTS, found="F").record(CASES)
    assert common_groups([("A", None), ("B", None)], CASES) is None
    # groups are of cases: a folder that does not say is no contradiction
    found = common_groups([("A", None), ("B", record)], CASES)
    assert found is not None and found.of == PATIENTS and found.found == "F"
    # folds have other cases each
    halves = [
        {"found": "F", "of": {c: PATIENTS[c] for c in part}} for part in (CASES[:2], CASES[2:])
    ]
    joined = common_groups([("A", halves[0]), ("B", halves[1])], CASES)
    assert joined is not None and joined.of == PATIENTS
    assert common_groups([("A", halves[0])], CASES) is None
    # by another name, but the same cases together
    renamed = {"found": "G", "of": {c: g.upper() for c, g in PATIENTS.items()}}
    same = common_groups([("A", record), ("B", renamed)], CASES)
    assert same is not None and same.count(CASES) == 2
    other = {"found": "G", "of": {"p1_a": "1", "p1_b": "2", "p2_a": "2"}}
    with pytest.raises(UserError, match="A and B were reported with other groups"):
        common_groups([("A", record), ("B", other)], CASES)
    with pytest.raises(UserError, match="B: groups are damaged"):
        common_groups([("B", {"of": [1]})], CASES)
