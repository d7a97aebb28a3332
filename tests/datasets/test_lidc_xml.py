"""The XML of LIDC-IDRI's readings: what is read, and what is refused by name."""

import pytest

from nnunetv2_lngswr.datasets.lidc_xml import read_reading
from tests.datasets.lidc_files import ROOT, nodule, write_xml


def test_a_reading(tmp_path):
    big = nodule(
        "Nodule 001",
        [("1.2.3", [(1, 1), (4, 1), (4, 4)], True), ("1.2.4", [(2, 2)], False)],
        malignancy=5,
    )
    small = nodule("IL057_159747", [("1.2.3", [(7, 8)], True)], malignancy=None)
    reading = read_reading(write_xml(tmp_path / "a.xml", "1", [[big], [], [small, big]]))
    assert (reading.series_uid, reading.readers, len(reading.nodules)) == (f"{ROOT}1", 3, 3)
    assert [(n.reader, n.nodule_id, n.small) for n in reading.nodules] == [
        (1, "Nodule 001", False),
        (3, "IL057_159747", True),
        (3, "Nodule 001", False),
    ]
    first = reading.nodules[0]
    assert first.characteristics["malignancy"] == 5 and [r.inclusion for r in first.rois] == [
        True,
        False,
    ]
    assert first.rois[0].sop_uid == "1.2.3" and first.rois[0].points.tolist() == [
        [1, 1],
        [4, 1],
        [4, 4],
    ]


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("<xCoord>4", "<xCoord>four", "reader 1, nodule N: expected a whole number, got 'four'"),
        ("<xCoord>4", f"<xCoord>{10**12}", f"must be from 0 to 65535, got {10**12}"),
        ("<xCoord>4", "<xCoord>-4", "must be from 0 to 65535, got -4"),
        ("<inclusion>TRUE", "<inclusion>maybe", "inclusion is neither TRUE nor FALSE"),
        ("</LidcReadMessage>", "", "not readable as XML"),
        ("SeriesInstanceUid", "Other", "has no ResponseHeader/SeriesInstanceUid"),
        ("LidcReadMessage", "html", "its root is html"),
    ],
)
def test_damaged_files_are_named(tmp_path, old, new, said):
    path = write_xml(
        tmp_path / "a.xml", "1", [[nodule("N", [("1.2", [(1, 1), (4, 1), (4, 4)], True)])]]
    )
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=said) as caught:
        read_reading(path)
    assert str(path) in str(caught.value)


def test_readings_of_radiographs_are_told_apart(tmp_path):
    assert read_reading(write_xml(tmp_path / "a.xml", "1", [[]], root="IdriReadMessage")) is None
