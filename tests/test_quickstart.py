"""quickstart.py: what it says to a Python that is too old, and what a signal leaves of it."""

import ast
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.utils.running import alive, wait_until

FILE = Path(__file__).parents[1] / "quickstart.py"


def load():
    spec = importlib.util.spec_from_file_location("quickstart", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_old_python_parses_it():
    tree = ast.parse(FILE.read_text(), feature_version=(3, 6))
    imported = {
        *(a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names),
        *(n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)),
    }
    # annotations of __future__ came with 3.7
    assert "__future__" not in imported and imported <= sys.stdlib_module_names


def test_an_old_python_is_told_so(monkeypatch, capsys):
    quickstart = load()
    monkeypatch.setattr(sys, "version_info", (3, 6, 15))
    assert quickstart.main(["demo"]) == 1
    assert "Python 3.11 or newer is needed, this is 3.6" in capsys.readouterr().err


def test_an_environment_is_used_again_but_not_that_of_a_folder_it_was_copied_from(
    monkeypatch, tmp_path
):
    quickstart, made = load(), []

    def make(environment, what):
        environment.mkdir(exist_ok=True)
        made.append(quickstart.HERE)

    monkeypatch.setattr(quickstart, "make", make)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "setup.py").write_bytes((FILE.parent / "setup.py").read_bytes())
    environment = tmp_path / "environment"
    for here in (FILE.parent, FILE.parent, copy, copy):
        monkeypatch.setattr(quickstart, "HERE", here)
        quickstart.prepare(environment, "demo")
    assert made == [FILE.parent, copy]


def test_usage(capsys):
    quickstart = load()
    assert quickstart.main(["--help"]) == 0 and quickstart.main([]) == 2
    assert "quickstart.py demo" in capsys.readouterr().out


# quickstart.py, whose work is a step, or a command, that has a child of its own
ENDED = """
import runpy, sys
from pathlib import Path
how, note = sys.argv[1:]
quickstart = runpy.run_path({file!r})
child = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); "
child += "open(sys.argv[1] + '.new', 'w').write(str(p.pid)); "
child += "import os; os.rename(sys.argv[1] + '.new', sys.argv[1]); time.sleep(60)"
command = [sys.executable, "-c", child, note]
quickstart["hear_signals"]()
try:
    if how == "step":
        quickstart["step"](Path(note + ".log"), "a step", command, "")
    else:
        quickstart["call"](command, None)
except quickstart["Ended"] as ended:
    sys.exit(128 + ended.args[0])
"""


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks into /proc")
@pytest.mark.parametrize("how", ["step", "call"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_its_children_first(tmp_path, how, number, status):
    note = tmp_path / "note"
    words = [sys.executable, "-c", ENDED.format(file=str(FILE)), how, str(note)]
    ours = subprocess.Popen(words, stdout=subprocess.DEVNULL, process_group=0)
    try:
        wait_until(note.exists)
        grandchild = int(note.read_text())
        ours.send_signal(number)
        assert ours.wait(30) == status
        # `lngswr demo` and pytest are told, and end their own
        if how == "step":
            wait_until(lambda: not alive(grandchild), 10)
    finally:
        ours.kill()
        ours.wait()
        if alive(grandchild):
            os.kill(grandchild, signal.SIGKILL)
