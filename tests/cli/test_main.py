"""The command line as a whole: what it imports, how it ends, and that a bug shows its traceback."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.training import warm_start

ROOT = Path(__file__).resolve().parents[2]
# run in a process of its own: answers which libraries `main` has imported
IMPORTED = """
import sys
before = set(sys.modules)
from nnunetv2_lngswr.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as stopped:
    status = stopped.code
ours = {"nnunetv2_lngswr", "evaluation", "patches"}
packages = {name.partition(".")[0] for name in set(sys.modules) - before}
libraries = sorted(packages - ours - set(sys.stdlib_module_names))
sys.exit(f"imported {libraries}" if libraries else status)
"""


def call_alone(argv: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", IMPORTED, *argv], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["demo", "--help"],
        ["card", "--help"],
        ["leaderboard", "--help"],
        ["warm-start", "--help"],
        ["convert-dataset", "lidc", "--help"],
        ["splits", "--help"],
        ["paper", "--help"],
        ["benchmark", "robustness", "--help"],
        ["benchmark", "overhead", "--help"],
    ],
)
def test_help_imports_no_library(argv):
    result = call_alone(argv)
    assert result.returncode == 0, result.stderr
    assert "lngswr" in result.stdout


@pytest.mark.parametrize(
    "argv",
    [
        ["--hepl"],
        ["regsiter"],
        ["demo", "--set", "4d"],
        ["paper", "lidc", "--epochs", "7"],
        ["splits", "-i", "x", "--patern", "y"],
        ["convert-dataset", "lidc", "-i", "x", "-o", "y", "--from", "slices"],
        [
            "benchmark",
            "robustness",
            "-d",
            "Dataset1_A",
            "-c",
            "2d",
            "-o",
            "x",
            "--fold",
            "0",
            "--x",
        ],
    ],
)
def test_a_misspelt_option_imports_no_library(argv):
    result = call_alone(argv)
    assert result.returncode == 2, result.stderr
    assert "usage: lngswr" in result.stderr and "error: " in result.stderr


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == f"lngswr {__version__}"


@pytest.mark.parametrize(
    "argv", [[], ["nonsense"], ["demo", "--sets", "4d"], ["warm-start", "one.pth"]]
)
def test_a_wrong_call_exits_2_with_usage(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    assert "usage: lngswr" in capsys.readouterr().err


def test_what_the_user_must_mend_becomes_one_line_and_exit_status_2(tmp_path, capsys):
    missing = tmp_path / "missing.pth"
    assert cli.main(["warm-start", str(missing), str(tmp_path / "out.pth")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lngswr: ") and captured.err.count("\n") == 1
    assert str(missing) in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_bug_shows_its_traceback(monkeypatch, capsys):
    def broken(source, destination, *, trust_checkpoint):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(warm_start, "warm_start_checkpoint", broken)
    assert cli.main(["warm-start", "one.pth", "two.pth"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "could not be broadcast" in said
    assert said.splitlines()[-1].startswith("lngswr: ") and "please report" in said


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("evaluate", "evaluation.robust"),
        ("compare", "evaluation.compare"),
        ("report", "evaluation.report_page"),
    ],
)
def test_evaluate_and_compare_pass_everything_through(monkeypatch, capsys, command, module):
    there = importlib.import_module(module)
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: lngswr {command} ")
    seen = []
    monkeypatch.setattr(there, "main", lambda argv, *, prog: seen.append(argv) or 3)
    assert cli.main([command, "-m", "x"]) == 3
    assert seen == [["-m", "x"]]
