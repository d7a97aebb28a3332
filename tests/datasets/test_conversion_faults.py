"""A conversion under faults: full disks, read-only folders, kills, two calls at once, odd paths."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets import conversion, image_folder, records
from nnunetv2_lngswr.utils import locks
from tests.datasets.folders import contents
from tests.datasets.image_files import TARGET, command, convert, save, speckle, square
from tests.permissions import as_a_user

PAGE_KIB = 4


def content_of(folder: Path) -> dict[str, str]:
    """File -> content, without times."""
    return {name: content for name, (content, _) in contents(folder).items()}


@contextmanager
def small_disk(folder: Path, kib: int):
    """`folder` on a file system of its own; yields what makes it larger."""
    folder.mkdir()

    def mount(options: str) -> None:
        call = ["mount", "-t", "tmpfs", "-o", options, "lngswr-test", str(folder)]
        done = subprocess.run(call, capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")

    mount(f"size={kib}k")
    try:
        yield lambda more: mount(f"remount,size={more}k")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount")
def test_a_full_disk_at_every_write_ends_with_one_line_and_the_same_call_goes_on(
    busi, tmp_path, capsys
):
    fresh = content_of(convert(busi, tmp_path / "fresh").folder)
    full = 0
    for pages in range(1, 60):
        raw = tmp_path / f"disk{pages}"
        with small_disk(raw, pages * PAGE_KIB) as grow:
            call = command(busi, raw, "--name", "Test", "--folds", "2", "--disable_progress_bar")
            call += ["--channel", "ultrasound", "--label", "nodule"]
            status = cli.main(call)
            said = capsys.readouterr().err
            if status == 0:
                break
            assert status == 2 and said.count("\n") == 1 and "No space left" in said, said
            full += 1
            grow(4096)
            assert cli.main(call) == 0
            capsys.readouterr()
            assert content_of(raw / TARGET.dataset_name) == fresh, pages
    print(f"{full} sizes of disk at which it was full")
    assert status == 0 and full >= 20


def test_a_read_only_folder_ends_with_one_line(busi, shared_folder, capsys):
    folder, raw = shared_folder / "in", shared_folder / "raw"
    os.rename(busi, folder)
    raw.mkdir(mode=0o555)
    with as_a_user():
        assert cli.main(command(folder, raw)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "ermission denied" in said
    assert list(raw.iterdir()) == []


def test_a_second_call_at_the_same_time_is_told_who_is_at_work(busi, tmp_path, monkeypatch, capsys):
    started, go_on = threading.Event(), threading.Event()
    real = image_folder._convert_pair

    def waits(*arguments):
        started.set()
        assert go_on.wait(60)
        return real(*arguments)

    monkeypatch.setattr(image_folder, "_convert_pair", waits)
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.5)
    first = threading.Thread(target=convert, args=(busi, tmp_path / "raw"))
    first.start()
    try:
        assert started.wait(60)
        call = command(busi, tmp_path / "raw", "--name", "Test", "--overwrite")
        assert cli.main(call) == 2
    finally:
        go_on.set()
        first.join()
    said = capsys.readouterr().err
    assert f"in use by lngswr convert-dataset (process {os.getpid()}" in said
    monkeypatch.undo()
    done = convert(busi, tmp_path / "raw")
    assert (done.converted, done.kept) == (0, 8)


def test_paths_with_blanks_and_letters_of_all_kinds(tmp_path):
    folder = tmp_path / "Schilddrüse 甲状腺 [1]*?"
    for number in range(4):
        save(speckle(number), folder / "Größe ✓" / f"Bild é {number}.png")
        save(square(slice(2, 8), slice(2, 8)), folder / "Größe ✓" / f"Bild é {number}_mask.png")
    # bytes that are no UTF-8, as old archives have them
    odd = os.fsdecode(b"k\xf6rper.png")
    try:
        save(speckle(9), folder / odd)
    except OSError:
        odd = None
    done = convert(folder, tmp_path / "raw [x] ü")
    assert done.counts["used"] == 4 and len(done.skipped) == (0 if odd is None else 1)
    assert {e.case for e in done.entries if e.case} == {f"Bild_{n}" for n in range(4)}
    again = convert(folder, tmp_path / "raw [x] ü")
    assert again.converted == 0


def test_a_name_that_is_too_long_is_skipped_and_named(busi, tmp_path):
    name = "x" * 240
    save(speckle(1), busi / f"{name}.png")
    save(square(slice(2, 8), slice(2, 8)), busi / f"{name}_mask.png")
    done = convert(busi, tmp_path / "raw")
    assert done.counts["used"] == 8
    assert [e.reason for e in done.skipped] == [
        "name of 240 bytes, cases have at most 180: rename it"
    ]


def test_an_orphan_takes_no_other_case_with_it(busi, tmp_path):
    for name in ("p", "p.q"):
        save(speckle(1), busi / f"{name}.png")
        save(square(slice(2, 8), slice(2, 8)), busi / f"{name}_mask.png")
    convert(busi, tmp_path / "raw")
    (busi / "p.png").unlink()
    (busi / "p_mask.png").unlink()
    done = convert(busi, tmp_path / "raw")
    assert (done.converted, done.kept) == (0, 9)
    assert (done.folder / "labelsTr" / "p.q.png").is_file()


@pytest.mark.parametrize("at", ["journal", "folders", "overwrite"])
def test_killed_between_two_steps(busi, tmp_path, monkeypatch, at):
    class Killed(BaseException):
        pass

    def dies(*arguments, **more):
        raise Killed

    settings = {}
    if at == "overwrite":
        convert(busi, tmp_path / "raw")
        settings = {"group_pattern": r"\((\d+)\)", "overwrite": True}
    with monkeypatch.context() as patch:
        if at == "journal":
            patch.setattr(conversion, "Journal", dies)
        elif at == "folders":
            patch.setattr(conversion, "remove_orphans", dies)
        else:
            # after all is removed, and before the new journal
            patch.setattr(conversion, "Journal", dies)
        with pytest.raises(Killed):
            convert(busi, tmp_path / "raw", **settings)
    folder = tmp_path / "raw" / TARGET.dataset_name
    (folder / "imagesTr").mkdir(exist_ok=True)
    (folder / "imagesTr" / ".partial-1-2-3-x_0000.png").write_bytes(b"half")
    done = convert(busi, tmp_path / "raw", **settings)
    assert done.converted == 8
    fresh = convert(busi, tmp_path / "fresh", **settings)
    assert content_of(folder) == content_of(fresh.folder)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"settings": [], "units": {}}',
        '{"settings": {}, "units": {"a": 1}}',
        "{",
        *(
            json.dumps({"settings": {}, "units": {"a": {"signature": "", "entries": [entry]}}})
            for entry in (
                {"source": "a", "status": "used", "case": "../../../holiday"},
                {"source": "a", "status": "used", "case": 5},
                {"source": "a", "status": "used", "case": "a", "more": 1},
                {"case": "a"},
                {"source": "a", "status": "weird"},
                {"source": "a", "status": "used", "case": "a", "details": 5},
            )
        ),
    ],
)
def test_a_damaged_manifest_is_named(busi, tmp_path, content, capsys):
    folder = convert(busi, tmp_path / "raw").folder
    (folder / "manifest.json").write_text(content)
    before = contents(folder)
    assert cli.main(command(busi, tmp_path / "raw", "--name", "Test")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(folder / "manifest.json") in said
    assert contents(folder) == before


def test_a_damaged_journal_is_begun_anew(busi, tmp_path):
    fresh = convert(busi, tmp_path / "raw")
    whole = content_of(fresh.folder)
    (fresh.folder / "manifest.json").unlink()
    (fresh.folder / records.JOURNAL).write_bytes(b"\xff\xfe\x00[]\n5\n")
    assert convert(busi, tmp_path / "raw").converted == 8
    assert content_of(fresh.folder) == whole


@pytest.mark.parametrize(
    "words, said",
    [
        (["--label", "background"], "label must be a name other than background"),
        (["--label", "ignore"], "label must be a name other than"),
        (["--folds", "0"], "folds must be >= 2, got 0"),
        (["--folds", "1"], "folds must be >= 2, got 1"),
        (["--folds", "99"], "99 folds need at least 99 groups, got 8: choose fewer (--folds)"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(busi, tmp_path, words, said, capsys):
    assert cli.main(command(busi, tmp_path / "raw", *words)) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and not (tmp_path / "raw").exists()


@pytest.mark.parametrize("words", [["--label", ""], ["--label", " "], ["--channel", ""]], ids=str)
def test_empty_names_are_refused_before_anything_is_written(busi, tmp_path, words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(command(busi, tmp_path / "raw", *words))
    assert ended.value.code == 2 and not (tmp_path / "raw").exists()
    assert f"argument {words[0]}: must not be empty" in capsys.readouterr().err


def test_two_masks_of_one_name_are_named(tmp_path):
    for number in range(3):
        save(speckle(number), tmp_path / "images" / f"{number}.png")
        save(square(slice(1, 3), slice(1, 3)), tmp_path / "masks" / f"{number}.png")
    save(square(slice(5, 9), slice(5, 9)), tmp_path / "masks" / "1.bmp")
    done = convert(tmp_path / "images", tmp_path / "raw", masks=tmp_path / "masks")
    assert done.counts["used"] == 2
    (entry,) = done.skipped
    assert entry.source == "1.png" and "several masks of one name: " in entry.reason


CHILD = """
import sys, time
from nnunetv2_lngswr.cli import main
from nnunetv2_lngswr.datasets import image_folder
print("ready", flush=True)
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_twenty_kills_at_random_moments_change_no_result(sent, tmp_path):
    folder, moments = tmp_path / "in", random.Random(18)
    for number in range(60):
        save(speckle(number, (120, 160)), folder / f"{number:02}.png")
        mask = square(slice(20, 80), slice(20, 80), shape=(120, 160))
        save(mask, folder / f"{number:02}_mask.png")
    started = time.monotonic()
    fresh = convert(folder, tmp_path / "fresh")
    whole, seconds = content_of(fresh.folder), time.monotonic() - started
    killed = begun = 0
    while killed < 20:
        raw = tmp_path / f"raw{killed}"
        call = [sys.executable, "-c", CHILD, *command(folder, raw, "--disable_progress_bar")]
        options = ["--name", "Test", "--folds", "2", "--channel", "ultrasound", "--label", "nodule"]
        with subprocess.Popen(
            [*call, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(moments.uniform(0, 1) * seconds)
            child.send_signal(sent)
        if child.returncode == 0:
            shutil.rmtree(raw)  # it had ended before
            continue
        killed += 1
        made = convert(folder, raw)
        begun += made.kept > 0
        assert content_of(made.folder) == whole
        assert json.loads((made.folder / "dataset.json").read_text())["numTraining"] == 60
    print(f"{killed} kills by {sent.name}, {begun} once cases were written")
    assert begun >= 5  # most of them within the conversion
