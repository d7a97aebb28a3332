"""How the demo runs a command. That they are those of this environment: tests/utils."""

import os
import sys
from pathlib import Path

import pytest

from nnunetv2_lngswr.experiments.demo.chain import Chain
from nnunetv2_lngswr.utils.errors import CommandError
from nnunetv2_lngswr.utils.processes import beside_python


def chain(tmp_path, say=lambda line: None):
    return Chain("2d", tmp_path, "cpu", say)


def test_a_failing_command_is_told_with_its_last_lines_and_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "nnunetv2_lngswr.utils.processes.beside_python", lambda name: sys.executable
    )
    code = "import sys\nfor i in range(40): print('line', i)\nsys.exit(3)"
    with pytest.raises(CommandError, match=r"exit status 3") as caught:
        chain(tmp_path)._command("train", ["nnUNetv2_train", "-c", code])
    assert "line 39" in str(caught.value) and "line 5\n" not in str(caught.value)
    log = tmp_path / "logs" / "2d_train.log"
    assert str(log) in str(caught.value) and "\nline 0\n" in log.read_text()


def test_a_command_runs_with_the_demos_folders_and_leaves_the_environment_alone(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "nnunetv2_lngswr.utils.processes.beside_python", lambda name: sys.executable
    )
    monkeypatch.setenv("nnUNet_raw", "/users/own")
    before = dict(os.environ)
    said = []
    code = (
        "import os; print('Epoch 3'); print(os.environ['nnUNet_raw']); "
        "print('raw', os.environ['nnUNet_raw'])"
    )
    chain(tmp_path, said.append)._command("train", ["python", "-c", code], show="Epoch|^raw ")
    assert said[1:] == ["    Epoch 3", f"    raw {tmp_path / 'nnUNet_raw'}"]
    assert dict(os.environ) == before


def test_commands_are_those_of_this_environment():
    assert Path(beside_python("pip")).parent == Path(sys.executable).parent
    with pytest.raises(ValueError, match="no_such_command"):
        beside_python("no_such_command")
