"""The command line: what it prints, returns and imports."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.installation import register

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "numpy", "nnunetv2", "matplotlib", "SimpleITK"}


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["demo", "--help"], ["warm-start", "--help"], ["convert-dataset", "lidc", "--help"],
                                  ["splits", "--help"], ["paper", "--help"]])  # fmt: skip
def test_help_imports_nothing_heavy(argv):
    code = (
        "import sys\nfrom nnunetv2_lngswr.cli.main import main\n"
        f"try: main({argv!r})\n"
        f"except SystemExit as e: sys.exit(e.code or ('imported ' + str(sorted({HEAVY!r} & set(sys.modules))) if {HEAVY!r} & set(sys.modules) else 0))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "lngswr" in result.stdout


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


def test_a_value_error_becomes_one_line_and_exit_status_2(tmp_path, capsys):
    missing = tmp_path / "missing.pth"
    assert cli.main(["warm-start", str(missing), str(tmp_path / "out.pth")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        captured.err.startswith("lngswr: ")
        and str(missing) in captured.err
        and captured.err.count("\n") == 1
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, action, said",
    [
        ("register", "registered", "registered: shim"),
        ("register", "unchanged", "already registered"),
        ("register", "updated", "updated"),
        ("unregister", "removed", "removed: shim"),
        ("unregister", "absent", "not registered"),
    ],
)
def test_register_and_unregister_say_what_they_did(monkeypatch, capsys, name, action, said):
    monkeypatch.setattr(register, name, lambda: [register.Change(action, Path("shim"))])
    assert cli.main([name]) == 0
    assert said in capsys.readouterr().out


def test_doctor_fails_only_for_what_is_wrong(monkeypatch, capsys):
    findings = [register.Finding("one", "fine"), register.Finding("two", "odd", "note", "look")]
    monkeypatch.setattr(register, "doctor", lambda: findings)
    assert cli.main(["doctor"]) == 0
    assert "-> look" in capsys.readouterr().out
    findings.append(register.Finding("three", "broken", "wrong", "mend it"))
    assert cli.main(["doctor"]) == 1
    assert "wrong: three" in capsys.readouterr().out


def test_demo_hands_its_options_on(monkeypatch):
    from nnunetv2_lngswr.experiments import demo

    seen = {}
    monkeypatch.setattr(
        demo, "run_demo", lambda *args, **options: seen.update(args=args, options=options)
    )
    assert cli.main(["demo", "-o", "there", "--sets", "2d", "--overwrite"]) == 0
    assert seen["args"] == ("there", ["2d"], "cpu") and seen["options"]["overwrite"] is True
    cli.main(["demo"])
    assert (
        seen["args"] == ("lngswr_demo", ["2d", "3d"], "cpu")
        and seen["options"]["overwrite"] is False
    )


@pytest.mark.parametrize(
    ("command", "module"), [("evaluate", "evaluation.robust"), ("compare", "evaluation.compare")]
)
def test_evaluate_and_compare_pass_everything_through(monkeypatch, capsys, command, module):
    there = importlib.import_module(module)
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0 and capsys.readouterr().out.startswith(
        f"usage: lngswr {command} "
    )
    seen = []
    monkeypatch.setattr(there, "main", lambda argv, *, prog: seen.append(argv) or 3)
    assert cli.main([command, "-m", "x"]) == 3
    assert seen == [["-m", "x"]]
