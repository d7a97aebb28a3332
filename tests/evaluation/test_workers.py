"""Processes that share the cases write what one process writes."""

import dataclasses
import errno
import json
import shutil
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
import torch

from evaluation import robust, workers
from evaluation.options import Options
from evaluation.results_folder import ResultsFolder
from evaluation.worker_process import error_of
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.tiny import cases_csv, run


def test_workers_share_the_cases_and_write_the_same(world, finished, tmp_path, monkeypatch):
    def in_this_process(*args, **kwargs):
        raise AssertionError("a case was run in this process")

    monkeypatch.setattr(workers, "run_cases", in_this_process)
    threads = torch.get_num_threads()
    monkeypatch.setattr(
        torch, "get_num_threads", lambda: 2 * threads
    )  # so that each worker has as many as made `finished`
    done = run(world, tmp_path / "out", workers=2)
    assert done.finished and cases_csv(done.folder) == cases_csv(finished.folder)
    assert sorted(p.name for p in done.folder.iterdir()) == sorted(
        p.name for p in finished.folder.iterdir()
    )
    # two cases are lost, and only these are done again
    kept, *lost = sorted((done.folder / "parts").glob("*.json"))
    before = kept.stat().st_mtime_ns
    for part in lost:
        part.unlink()
    again = run(world, tmp_path / "out", workers=2)
    assert (
        cases_csv(again.folder) == cases_csv(finished.folder) and kept.stat().st_mtime_ns == before
    )


def test_workers_get_the_exact_options(world, tmp_path, monkeypatch):
    given = Options(
        attacks=["pgd_linf", "pgd_l2"],
        epsilons=["1/300"],
        epsilons_l2=["1/700"],
        steps_of={"pgd_l2": 3},
    )
    called = []

    def keep_the_call(count, session, todo, out, *, progress):
        called.append(json.loads(json.dumps(workers.call_of(session, out))))

    monkeypatch.setattr(workers, "run_in_workers", keep_the_call)
    monkeypatch.setattr(robust, "_write_report", lambda *others: {})
    with suppress(Exception):  # nothing was done that could be merged
        run(
            world,
            tmp_path / "out",
            workers=2,
            **{
                f.name: getattr(given, f.name)
                for f in dataclasses.fields(given)
                if f.name != "device"
            },
        )
    assert dataclasses.replace(Options.from_record(called[0]["options"]), device=None) == given


def test_workers_share_the_memory_for_graphs(world, tmp_path, monkeypatch):
    told = []

    @contextmanager
    def keep_what_is_told(code, call, environment):
        told.append(call["options"]["graph_memory"])
        yield SimpleNamespace(process=SimpleNamespace(poll=lambda: 0), error=lambda: None)

    monkeypatch.setattr(workers, "started", keep_what_is_told)
    monkeypatch.setattr(robust, "_write_report", lambda *others: {})
    with suppress(Exception):  # nothing was done that could be merged
        run(world, tmp_path / "out", workers=2, graph_memory=1001)
    assert told == [500, 500]


def test_workers_leave_torchruns_share_alone(world, tmp_path, monkeypatch):
    options = {"attacks": ["noise"], "epsilons": ["4/255"], "corruptions": []}
    whole = run(world, tmp_path / "whole", **options)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        done = run(world, tmp_path / "shared", workers=2, **options)
    assert done.finished and cases_csv(done.folder) == cases_csv(whole.folder)


def test_a_failing_worker_ends_the_others_and_says_why(world, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="workers must be an integer >= 1"):
        run(world, tmp_path / "none", workers=0)
    monkeypatch.setattr(Options, "record", lambda self: {"max_cases": 0})
    with pytest.raises(ValueError, match="max_cases must be an integer >= 1, got 0"):
        run(world, tmp_path / "out", workers=2)
    folder = shutil.copytree(world[0], tmp_path / "model")
    monkeypatch.undo()
    open_folder = ResultsFolder.open

    def then_lose_the_model(self, settings):
        open_folder(self, settings)
        shutil.rmtree(folder / "fold_0")

    monkeypatch.setattr(ResultsFolder, "open", then_lose_the_model)
    with pytest.raises(ValueError, match="fold"):
        run((folder, *world[1:]), tmp_path / "out2", workers=2)


@pytest.mark.parametrize(
    ("device", "dimension", "cases", "expected"),
    [("cpu", 2, 20, 4), ("cpu", 2, 3, 3), ("cpu", 2, 1, 1), ("cpu", 3, 20, 1), ("cuda", 2, 20, 1)],
)
def test_workers_by_default_where_they_help(device, dimension, cases, expected, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    model = SimpleNamespace(device=torch.device(device))

    def session(cost):
        planned = SimpleNamespace(runs=[SimpleNamespace(cost=cost)])
        return SimpleNamespace(model=model, two_dimensional=dimension == 2, planned=planned)

    costly, cheap = session(1000), session(1)
    assert workers.count_workers(None, costly, [None] * cases) == expected
    assert workers.count_workers(None, cheap, [None] * cases) == 1
    assert workers.count_workers(2, cheap, [None] * cases) == min(2, cases)


def test_what_ended_a_worker_is_raised_here():
    def error(status, *arguments):
        return error_of(status, json.dumps(arguments), "a warning\n")

    bad = error(2, "two lines\nof text")
    assert isinstance(bad, UserError) and str(bad) == "two lines\nof text"
    full = error(3, errno.ENOSPC, "No space left on device", None, None)
    assert isinstance(full, OSError) and (full.errno, full.filename) == (errno.ENOSPC, None)
    missing = error(3, errno.ENOENT, "No such file or directory", "a.nii.gz", None)
    assert isinstance(missing, FileNotFoundError) and missing.filename == "a.nii.gz"
    assert isinstance(error(130), KeyboardInterrupt)
    bug = error_of(1, "", "Traceback ...\nValueError: operands")
    assert isinstance(bug, RuntimeError) and "ValueError: operands" in str(bug)
