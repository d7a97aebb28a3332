"""A worker imports ours and nobody else's, ends with us, and says what ended it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import evaluation
from evaluation import worker_process
from evaluation.worker_process import Worker, command, error_of, started
from nnunetv2_lngswr.utils.errors import UserError

ROOT = Path(__file__).parents[2]


def ended(code, call=None):
    """The error of a worker that runs `code`."""
    with started(code, call or {}, dict(os.environ)) as worker:
        worker.process.wait()
        return worker.error()


@pytest.mark.parametrize("place", ["on the path", "working directory"])
def test_a_users_module_of_a_librarys_name_is_not_imported(place, tmp_path, monkeypatch):
    for name in ("statistics.py", "evaluation.py"):
        (tmp_path / name).write_text("raise SystemError('the user\\'s own')")
    if place == "on the path":
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)  # which is the user's own word
    code = "import statistics, evaluation; print(statistics.__file__, evaluation.__file__)"
    done = subprocess.run(command(code), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    library, ours = done.stdout.split()
    assert Path(ours) == Path(evaluation.__file__) and not Path(library).is_relative_to(tmp_path)


def test_what_only_the_path_has_is_still_found(tmp_path, monkeypatch):
    (tmp_path / "my_trainers.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert subprocess.run(command("import my_trainers")).returncode == 0


SERVE = """
from evaluation.worker_process import serve
from nnunetv2_lngswr.utils.errors import UserError
def work(call):
    print("printed by a library")
    {}
serve(work)
import atexit, sys
atexit.register(print, "said last", file=sys.stderr)
"""


def test_a_users_error_comes_back_whole():
    text = "case0 (a.nii.gz): one\n\ntwo\u2028\n" + "many lines\n" * 20_000
    error = ended(
        SERVE.format('import sys; print("late", file=sys.stderr); raise UserError(call["text"])'),
        {"text": text},
    )
    assert isinstance(error, UserError) and str(error) == text


def test_a_system_error_comes_back_with_its_files():
    error = ended(SERVE.format('open("/not/there")'))
    assert isinstance(error, FileNotFoundError) and error.filename == "/not/there"
    error = ended(SERVE.format('import os; os.rename("/not/a", "/not/b")'))
    assert (error.filename, error.filename2) == ("/not/a", "/not/b")


def test_a_bug_comes_back_with_all_that_was_said():
    error = ended(SERVE.format('print("long " * 9000); raise RuntimeError("ours")'))
    assert isinstance(error, RuntimeError)
    assert len(str(error)) > 45_000 and "RuntimeError: ours" in str(error)
    assert ended(SERVE.format("pass")) is None


def test_a_worker_that_the_system_killed_is_no_bug_of_ours():
    error = ended(SERVE.format("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert isinstance(error, UserError) and "signal 9" in str(error) and "--workers" in str(error)
    assert isinstance(error_of(-signal.SIGSEGV, "", "Fatal Python error"), RuntimeError)
    assert isinstance(error_of(2, '["cut', "said"), RuntimeError)


PARENT = """
import ctypes, os, sys
from evaluation import worker_process
code = f"import ctypes; ctypes.CDLL = {sys.argv[1]}\\n" + '''
from evaluation.worker_process import serve
def work(call):
    import os, time
    print(os.getpid(), flush=True)
    time.sleep(60)
import os
os.dup2(os.open(os.environ["SAYS"], os.O_WRONLY), 2)
serve(work)
'''
with worker_process.started(code, {}, dict(os.environ)) as worker:
    worker.process.wait()
"""


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize(
    "library", ["ctypes.CDLL", "lambda name: 0"], ids=["by the system", "by the pipe"]
)
def test_a_worker_ends_with_its_parent_however_that_is_ended(library, tmp_path):
    says = tmp_path / "says"
    os.mkfifo(says)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, library], cwd=ROOT, env={**os.environ, "SAYS": str(says)}
    )
    with open(says) as file:
        worker = int(file.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert file.read() == ""  # its end is that of the worker
    end = time.monotonic() + 5
    while _runs(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_whose_parent_is_gone_already_does_not_begin():
    code = "from evaluation.worker_process import serve; serve(print)"
    done = subprocess.run(
        command(code), input=json.dumps({"parent": 1 << 22}), capture_output=True, text=True
    )
    assert done.returncode == worker_process.ORPHANED and done.stdout == ""


def test_a_worker_is_ended_where_the_block_ends_in_an_error(monkeypatch):
    from nnunetv2_lngswr.utils import processes

    monkeypatch.setattr(processes, "PATIENCE_SECONDS", (0.1, 5.0))
    kept: list[Worker] = []
    code = SERVE.format("import time; print(flush=True); time.sleep(60)")

    def fail(worker):
        kept.append(worker)
        raise KeyError

    with pytest.raises(KeyError), started(code, {}, dict(os.environ)) as worker:
        fail(worker)
    assert kept[0].process.poll() is not None
