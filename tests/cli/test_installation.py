"""`lngswr register`, `unregister` and `doctor`: what they print and return."""

from pathlib import Path

import pytest

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.installation import doctor, register


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
    findings = [doctor.Finding("one", "fine"), doctor.Finding("two", "odd", "note", "look")]
    monkeypatch.setattr(doctor, "doctor", lambda: findings)
    assert cli.main(["doctor"]) == 0
    assert "-> look" in capsys.readouterr().out
    findings.append(doctor.Finding("three", "broken", "wrong", "mend it"))
    assert cli.main(["doctor"]) == 1
    assert "wrong: three" in capsys.readouterr().out
