"""Laws of cases.csv: equal results give equal bytes, and come back as they were."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evaluation.report import cases_table
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.report.rows import all_rows, row, rows_of


def test_cases_csv_round_trips_and_is_deterministic(tmp_path):
    rows = all_rows()
    rows[0]["dice"] = float("nan")
    rows[1]["dice_drop"] = -0.0
    for name in ("a", "b"):
        cases_table.write_cases(tmp_path / name, rows)
    text = (tmp_path / "a").read_text()
    assert text == (tmp_path / "b").read_text() and "\r" not in text and "-0," not in text
    back = cases_table.read_cases(tmp_path / "a")
    assert len(back) == len(rows)
    assert (
        np.isnan(back[0]["dice"])
        and back[0]["epsilon"] is None
        and back[3]["dice"] == pytest.approx(rows[3]["dice"], rel=1e-8)
    )
    cases_table.write_cases(tmp_path / "c", back)
    assert (tmp_path / "c").read_text() == text
    assert not any("second" in c or "time" in c for c in cases_table.COLUMNS)


def test_another_csv_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("case,dice\na,1\n")
    with pytest.raises(ValueError, match="no cases.csv of this version"):
        cases_table.read_cases(tmp_path / "x.csv")


names = st.text(
    st.characters(codec="utf-8") | st.sampled_from(list(",\"'\n\r=;\t \u00e4\u4e2d\U0001f600")),
    min_size=1,
    max_size=12,
)
names_of_files = names.filter(lambda name: not {"/", "\0"} & set(name))
sizes = st.integers(0, 2**53)
numbers = st.floats(0, 1) | st.just(float("nan"))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(names_of_files, names, names, numbers, sizes), max_size=4))
@example([("=1+1", "a,b", '"c"', 0.5, 3), ("a\r\nb", "\r", "\n", 0.1, 0)])
def test_any_names_go_through_the_csv_and_come_back(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("names") / "cases.csv"
    rows = [
        row(case, "attack", attack, dice, label_name=name, reference_voxels=voxels)
        for case, attack, name, dice, voxels in found
    ]
    cases_table.write_cases(path, rows)
    back = cases_table.read_cases(path)
    texts = [c for c in cases_table.COLUMNS if isinstance(back and back[0][c], str)]
    assert [[b[c] for c in texts] for b in back] == [[r[c] or "" for c in texts] for r in rows]
    for b, r in zip(back, rows):
        assert b["reference_voxels"] == r["reference_voxels"]
        assert b["dice"] == pytest.approx(r["dice"], rel=1e-8, nan_ok=True)
    again = path.read_bytes()
    cases_table.write_cases(path, back)
    assert path.read_bytes() == again


DAMAGE = {
    "cut in a row": (lambda text: text[:-25], "line 43: the row has .* fields"),
    "cut in a number": (lambda text: text.replace("0.9,", "0.9.,", 1), "dice must be a number"),
    "a row too long": (lambda text: text[:-1] + ",1\n", "line 43: the row has .* fields"),
    "no Dice": (lambda text: text.replace(",0.95,0.95", ",,0.95", 1), "dice must not be empty"),
    "no case": (lambda text: text.replace("\na,", "\n,", 1), "line 2: case must not be empty"),
    "a case elsewhere": (
        lambda text: text.replace("\na,", "\n../../private/b,", 1),
        "line 2: case must be a name without /, got '../../private/b'",
    ),
    "a fold elsewhere": (
        lambda text: text.replace("\na,,", "\na,../../private/b,", 1),
        "line 2: fold must be numbers with \\+ between them, or all, got '../../private/b'",
    ),
    "empty": (lambda text: "", "columns case, .* are missing"),
    "Latin-1": (lambda text: text.replace("name 1", "K\u00f6rper").encode("latin-1"), "in UTF-8"),
    "NUL": (lambda text: text.encode("utf-16"), "in UTF-8"),
}


@pytest.mark.parametrize("damage, message", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_csv_is_refused_with_its_line(damage, message, tmp_path):
    cases_table.write_cases(tmp_path / "cases.csv", rows_of("a"))
    content = damage((tmp_path / "cases.csv").read_text())
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "cases.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        cases_table.read_cases(tmp_path / "cases.csv")
    assert "cases.csv" in str(caught.value) and "\n" not in str(caught.value)
