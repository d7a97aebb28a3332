"""Full disks, kills, clocks and what else happens to an evaluation: the same call goes on."""

import copy
import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from evaluation import robust, run_case
from evaluation.report import examples, figures
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file
from tests.evaluation.faults import refused
from tests.evaluation.tiny import FAST_WORDS, cases_csv, command, run

QUICK = {"attacks": ["fgsm"], "epsilons": ["4/255"], "corruptions": [], "max_cases": 1}


@pytest.fixture
def own_world(world, tmp_path):
    """A copy of `world` that may be changed."""
    folder, images, _ = world
    mine = shutil.copytree(folder, tmp_path / "model"), shutil.copytree(images, tmp_path / "images")
    return (*mine, mine[1] / "labels")


@pytest.fixture(scope="module")
def recorded(world, tmp_path_factory):
    """(Evaluation, session, result of its case) of `run(world, out, **QUICK)`."""
    found, run_first, prepare = [], run_case.run_case, robust._prepare

    def kept(function):
        def call(*arguments, **more):
            found.append(function(*arguments, **more))
            return copy.deepcopy(found[-1]) if function is run_first else found[-1]

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_case, "run_case", kept(run_first))
        patch.setattr(robust, "_prepare", kept(prepare))
        whole = run(world, tmp_path_factory.mktemp("recorded") / "out", **QUICK)
    return whole, *found


@pytest.fixture
def replayed(recorded, monkeypatch):
    """`run(world, out, **QUICK)` without its computing: case and pictures are those of before."""
    whole, session, result = recorded
    monkeypatch.setattr(run_case, "run_case", lambda *o, **m: copy.deepcopy(result))
    monkeypatch.setattr(robust, "_prepare", lambda *others: session)
    monkeypatch.setattr(session, "check_files", lambda cases, progress: None)
    for module, name, file in (
        (figures, "draw_curves", "curves.png"),
        (examples, "draw_examples", "examples.png"),
    ):
        content = (whole.folder / file).read_bytes()
        monkeypatch.setattr(
            module, name, lambda path, *o, content=content: write_file(path, content)
        )
    return whole


def at_every_write(world, out, whole):
    """Have every write of an evaluation into `out` / n fail once; returns how many there are."""
    for number in itertools.count(1):
        place = out / str(number)
        with refused(place, errno.ENOSPC, fail_at=number) as writes:
            with suppress(OSError):
                assert run(world, place, **QUICK).finished  # what failed did not matter
        if not (place / "parts").exists():
            assert not place.exists() or not [*place.iterdir()]
        assert not [*place.rglob("*.tmp"), *place.rglob(".partial*")]
        assert run(world, place, **QUICK).finished
        for name in ("cases.csv", "report.md", "curves.png", "examples.png", "settings.json"):
            if name != "report.md":  # which has times
                assert (place / name).read_bytes() == (whole.folder / name).read_bytes()
        assert {p.name for p in place.iterdir()} == {p.name for p in whole.folder.iterdir()}
        if writes.count < number:
            return number - 1
    raise AssertionError


def test_a_full_disk_at_any_write_and_the_same_call_goes_on(world, replayed, tmp_path):
    # claim, settings, two files of the case, five of the report: each opened, flushed, renamed
    assert at_every_write(world, tmp_path / "full", replayed) > 25


@pytest.mark.slow
def test_a_full_disk_at_any_write_of_the_whole_evaluation(world, tmp_path):
    whole = run(world, tmp_path / "whole", **QUICK)
    print(at_every_write(world, tmp_path / "full", whole), "writes")


def test_a_folder_that_cannot_be_written_is_one_line(world, finished, tmp_path, capsys):
    out = shutil.copytree(finished.folder, tmp_path / "out")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for place in (out, tmp_path / "new"):
        with refused(place, errno.EROFS):
            words = command(world, place, "--disable_progress_bar", *FAST_WORDS)
            assert robust.main(words) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "Read-only file system" in said and str(place) in said
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert not (tmp_path / "new").exists()


def test_a_clock_that_is_set_back_changes_nothing(world, replayed, tmp_path, monkeypatch):
    out, now = tmp_path / "out", itertools.count(2e9, -3600)
    monkeypatch.setattr(time, "time", lambda: next(now))
    assert run(world, out, **QUICK).finished and cases_csv(out) == cases_csv(replayed.folder)
    # as if it had been finished before its images were there
    for path in out.rglob("*"):
        os.utime(path, (0, 0))
    part = next((out / "parts").glob("*.json"))
    assert run(world, out, **QUICK).finished and part.stat().st_mtime_ns == 0


def fails_in_first_case(error):
    def fail(*others, **more):
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        UserError("two\nlines"),
        KeyboardInterrupt(),
        RuntimeError("a bug"),
        OSError(errno.EIO, "I/O"),
        MemoryError(),
    ],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("there", [False, True])
def test_a_call_that_comes_to_nothing_leaves_nothing(
    error, there, world, replayed, tmp_path, monkeypatch
):
    out = tmp_path / "above" / "out"
    if there:
        out.mkdir(parents=True)
    monkeypatch.setattr(run_case, "run_case", fails_in_first_case(error))
    with pytest.raises(type(error)):
        run(world, out, **QUICK)
    assert [*out.iterdir()] == [] if there else not (tmp_path / "above").exists()


def test_results_stay_where_a_later_call_comes_to_nothing(world, finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished.folder, tmp_path / "out")
    (out / "parts" / "case0.json").unlink()
    before = sorted(p.name for p in out.rglob("*"))
    monkeypatch.setattr(run_case, "run_case", fails_in_first_case(UserError("case0: no")))
    with pytest.raises(UserError, match="^case0: no$"):
        run(world, out)
    assert sorted(p.name for p in out.rglob("*")) == before


def test_what_ends_a_case_says_which_case_and_file(world, replayed, tmp_path, monkeypatch):
    image = next(world[1].glob("*_0000.nii.gz")).name[:4]
    monkeypatch.setattr(run_case, "run_case", fails_in_first_case(UserError("several\nlines\nof")))
    with pytest.raises(UserError, match=rf"case\d .*{image}\d_0000.nii.gz.*: several\nlines\nof"):
        run(world, tmp_path / "out", **QUICK)
    monkeypatch.setattr(run_case, "run_case", fails_in_first_case(RuntimeError("a bug")))
    with pytest.raises(RuntimeError) as caught:
        run(world, tmp_path / "out", **QUICK)
    assert "_0000.nii.gz) was evaluated" in caught.value.__notes__[0]


def once_run(change):
    """run_case, after which `change` happens once."""
    original, changes = run_case.run_case, iter([change])

    def run_and_change(*others, **more):
        result = original(*others, **more)
        next(changes, lambda: None)()
        return result

    return run_and_change


@pytest.mark.parametrize("name", ["fold_0/checkpoint_final.pth", "dataset.json", "plans.json"])
def test_a_model_that_changes_while_it_is_evaluated_is_refused(
    name, own_world, tmp_path, monkeypatch
):
    path, out = own_world[0] / name, tmp_path / "out"
    before = path.read_bytes()
    monkeypatch.setattr(run_case, "run_case", once_run(lambda: path.write_bytes(before + b" ")))
    with pytest.raises(UserError, match=f"{path} has changed while .* SHA-256 was .*, is "):
        run(own_world, out, **QUICK)
    assert not (out / "cases.csv").exists()
    path.write_bytes(before)
    assert run(own_world, out, **QUICK).finished


def test_an_image_that_changes_while_it_is_evaluated_is_refused(own_world, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def change():
        for path in own_world[1].glob("*.nii.gz"):
            shutil.copy(own_world[1] / "case0_0000.nii.gz", tmp_path / "other")
            path.write_bytes((tmp_path / "other").read_bytes() + b"\0")

    monkeypatch.setattr(run_case, "run_case", once_run(change))
    with pytest.raises(UserError, match="changed while it was evaluated"):
        run(own_world, out, **QUICK)
    assert run(own_world, out, **QUICK).finished


def test_files_are_hashed_once_and_not_again_while_size_and_times_stay(
    own_world, replayed, tmp_path, monkeypatch
):
    session, read = robust._prepare(), []
    digest = hashlib.file_digest

    def note(file, name):
        read.append(Path(file.name))
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", note)
    run(own_world, tmp_path / "out", **QUICK)
    (case,) = session.cases
    inputs = {*case.images, case.label}
    assert sorted(p for p in read if p in inputs) == sorted(inputs)
    read.clear()
    assert run(own_world, tmp_path / "out", **QUICK).finished and not inputs & {*read}
    os.utime(case.label)
    assert run(own_world, tmp_path / "out", **QUICK).finished and {*inputs} <= {*read}


def evaluate_in_a_process(world, out, options):
    import torch

    torch.set_num_threads(1)
    run(world, out, **options)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_evaluation_killed_at_random_moments_goes_on_to_the_same_bytes(world, tmp_path, number):
    """Twenty moments each, two of them with two workers; some fall before and after the work."""
    context, rng = multiprocessing.get_context("forkserver"), random.Random(int(number))
    context.set_forkserver_preload(["tests.evaluation.tiny", "nnunetv2.inference", "torch"])

    quick = {**QUICK, "max_cases": None, "epsilons": ["4/255", "8/255"]}

    def timed(out, workers, seconds=None):
        started, options = time.monotonic(), {**quick, "workers": workers}
        process = context.Process(target=evaluate_in_a_process, args=(world, out, options))
        process.start()
        process.join(seconds)
        if process.is_alive():
            os.kill(process.pid, number)
        process.join()
        return process.exitcode, time.monotonic() - started

    timed(tmp_path / "first", 1)  # it imports what the others find
    names = {p.name for p in (tmp_path / "first").iterdir()}
    lengths = {n: timed(tmp_path / f"timed{n}", n)[1] for n in (1, 2)}
    killed = parts = trial = 0
    while killed < 20:
        out, workers = tmp_path / str(trial), 2 if trial % 10 == 9 else 1
        code, _ = timed(out, workers, rng.uniform(0, lengths[workers]))
        killed += code == -number
        parts += len([*out.glob("parts/*.json")])
        code, seconds = timed(out, workers)
        assert code == 0 and cases_csv(out) == cases_csv(tmp_path / "first")
        assert {p.name for p in out.iterdir()} == names
        assert not [*out.rglob("*.tmp"), *out.rglob(".partial*")]
        # other work on this machine comes and goes
        lengths[workers] = min(lengths[workers], seconds)
        trial += 1
        assert trial < 80
    print(f"{killed} killed in {trial} trials, {parts} finished cases kept")


@pytest.mark.slow
def test_killed_and_overwritten_with_other_settings_is_a_table_of_one(world, tmp_path):
    """The workers of a killed call end; what they would have written later does not count."""
    context, out = multiprocessing.get_context("forkserver"), tmp_path / "out"
    long = {"workers": 2, "steps": 40, "attacks": ["pgd_linf"], "corruptions": []}
    process = context.Process(target=evaluate_in_a_process, args=(world, out, long))
    process.start()
    end = time.monotonic() + 120
    while not [*out.glob("parts/*.json")] and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    short = {**long, "steps": 10, "workers": 1}
    assert run(world, out, **short, overwrite=True).finished
    time.sleep(3)
    steps = {r["steps"] for r in robust.Evaluation(folder=out, finished=True, summary={}).rows()}
    parts = [json.loads(p.read_text()) for p in (out / "parts").glob("*.json")]
    assert steps == {None, 10} and len({p["settings_sha256"] for p in parts}) == 1
    assert cases_csv(out) == cases_csv(run(world, tmp_path / "alone", **short).folder)
