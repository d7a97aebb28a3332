"""Every file below a folder is found once; what cannot be looked at is named."""

import os

import pytest

from nnunetv2_lngswr.datasets.find_files import find_files
from tests.datasets.image_files import convert, save, speckle
from tests.permissions import as_a_user


def test_links_in_circles_end_and_linked_folders_are_searched_once(tmp_path):
    folder = tmp_path / "in"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.png").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.png").write_text("x")
    (folder / "a" / "round").symlink_to(folder)
    (folder / "b").symlink_to(folder / "a")
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    files, wrong = find_files(folder)
    assert files == [folder / "a" / "1.png", folder / "c" / "2.png"] and wrong == []


def test_links_that_lead_nowhere_are_named(busi, tmp_path):
    (busi / "benign" / "self.png").symlink_to("self.png")
    (busi / "benign" / "gone.png").symlink_to(tmp_path / "gone")
    (busi / "benign" / "note.txt").symlink_to(tmp_path / "gone")  # no image, and so nothing to name
    done = convert(busi, tmp_path / "raw")
    assert {e.source: e.reason for e in done.skipped} == {
        "benign/self.png": "link that leads to no file (self.png)",
        "benign/gone.png": f"link that leads to no file ({tmp_path / 'gone'})",
    }
    assert done.counts["used"] == 8


def test_what_is_written_is_not_read_again(busi):
    first = convert(busi, busi / "nnUNet_raw")
    again = convert(busi, busi / "nnUNet_raw")
    assert (again.converted, again.kept, again.skipped) == (0, 8, []) == (0, first.converted, [])


@pytest.mark.skipif(os.name == "nt", reason="no such permissions on Windows")
def test_folders_and_files_without_permission_are_named(busi, shared_folder):
    save(speckle(3), busi / "locked" / "1.png")
    folder = shared_folder / "in"
    os.rename(busi, folder)
    image = folder / "benign" / "benign (1).png"
    image.chmod(0)
    (folder / "locked").chmod(0)
    try:
        with as_a_user():
            done = convert(folder, shared_folder / "raw")
    finally:
        (folder / "locked").chmod(0o755)
    assert {e.source for e in done.skipped} == {"locked", "benign/benign (1).png"}
    assert all("ermission denied" in e.reason for e in done.skipped)
    assert done.counts["used"] == 7
