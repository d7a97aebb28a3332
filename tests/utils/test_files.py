"""Files are written whole or not at all."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nnunetv2_lngswr.utils import files
from nnunetv2_lngswr.utils.files import (
    atomic_path,
    holds_nothing,
    remove_leftovers,
    write_file,
)

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
from nnunetv2_lngswr.utils.files import write_file
def half(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
write_file(sys.argv[1], half)
"""


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


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_permissions_are_those_that_open_gives(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_file(tmp_path / "ours", "x")
        (tmp_path / "plain").write_text("x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "ours") == mode(tmp_path / "plain")
    os.chmod(tmp_path / "ours", 0o640)
    write_file(tmp_path / "ours", "y")
    assert mode(tmp_path / "ours") == 0o640


def test_the_process_keeps_its_umask_while_a_file_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("other threads would see it"))
    write_file(tmp_path / "x", "x")


def test_file_and_folder_are_on_the_disk(tmp_path, monkeypatch):
    flushed, replace, sync = [], os.replace, os.fsync

    def note(file):
        flushed.append(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", lambda *pair: (flushed.append("replaced"), replace(*pair)))
    with atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("x")
    inodes = [(tmp_path / "x").stat().st_ino, "replaced", tmp_path.stat().st_ino]
    assert flushed == inodes


def test_a_link_is_replaced_and_a_linked_folder_is_written_into(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_text("mine")
    (tmp_path / "folder").symlink_to(tmp_path / "far")
    for number, target in enumerate((tmp_path / "far" / "file", tmp_path / "far" / "absent")):
        link = tmp_path / "folder" / f"link{number}"
        link.symlink_to(target)
        for text in ("new", "again"):
            write_file(link, text)
            assert not link.is_symlink() and link.read_text() == text
    names = sorted(p.name for p in (tmp_path / "far").iterdir())
    assert names == ["file", "link0", "link1"]
    assert (tmp_path / "far" / "file").read_text() == "mine"


def test_two_writers_at_once_leave_one_whole_file(tmp_path):
    path, sizes = tmp_path / "x", set()
    contents = [letter * 300_000 for letter in (b"a", b"b", b"c")]

    def write(content):
        for _ in range(15):
            write_file(path, content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            sizes.add(path.read_bytes() in contents)
    assert sizes == {True} and path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_what_a_killed_writer_left_is_removed_by_the_next_and_a_living_ones_stays(tmp_path):
    target = write_file(tmp_path / "x.png", "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL and target.read_text() == "old"
    (left,) = (p for p in tmp_path.iterdir() if p != target)
    with atomic_path(target) as ours:
        ours.write_text("new")
        remove_leftovers(tmp_path)
        assert ours.exists() and not left.exists()
    assert os.listdir(tmp_path) == ["x.png"]
    # in the ordinary way, once per process and folder
    left.touch()
    files.remove_leftovers_once.cache_clear()
    write_file(tmp_path / "y", "new")
    assert not left.exists()


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_of_another_process_space_only_what_is_old_is_removed(tmp_path, monkeypatch):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x")], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    # a container, or another machine of the same name: its process may be alive
    monkeypatch.setattr(files, "_HOST", "00000000")
    remove_leftovers(tmp_path)
    assert left.exists()
    os.utime(left, (0, 0))
    remove_leftovers(tmp_path)
    assert not left.exists()


@pytest.mark.skipif(not os.path.exists("/proc/self/ns/pid"), reason="not on Linux")
def test_a_process_space_is_this_machine_s_boot_and_namespace(monkeypatch):
    assert files._process_space() == files._HOST
    monkeypatch.setattr(files.os, "readlink", lambda path: "pid:[1]")
    assert files._process_space() != files._HOST


def test_a_folder_with_leftovers_alone_holds_nothing(tmp_path):
    assert holds_nothing(tmp_path / "absent") and holds_nothing(tmp_path)
    (tmp_path / ".lock").touch()
    with atomic_path(tmp_path / "x") as temporary:
        temporary.touch()
        assert holds_nothing(tmp_path)
    assert not holds_nothing(tmp_path)


def test_names_may_be_as_long_as_the_system_takes(tmp_path):
    name = "\N{GREEK SMALL LETTER ALPHA}" * 120 + ".nii.gz"
    with atomic_path(tmp_path / name) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.touch()
    assert os.listdir(tmp_path) == [name]
