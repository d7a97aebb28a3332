"""Files are written whole or not at all."""

import errno
import os

import pytest

from nnunetv2_lngswr.utils.files import atomic_path, write_file


def test_success_replaces_and_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.md"
    write_file(path, "old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.md"]
    write_file(path, "new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["report.md"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text", b"text"),
        (b"bytes", b"bytes"),
        (lambda file: file.write(b"written"), b"written"),
    ],
)
def test_write_file_makes_the_folder_and_takes_text_bytes_or_a_writer(tmp_path, content, expected):
    path = write_file(tmp_path / "new" / "file", content)
    assert path.read_bytes() == expected


def test_temporary_name_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "curves.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.touch()


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = write_file(tmp_path / "x.txt", "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_file(target, "new")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["x.txt"]

    def stopped(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(target, stopped)
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["x.txt"]
