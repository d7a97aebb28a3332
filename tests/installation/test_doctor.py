"""What the doctor says of an installation, with answers in place of its child processes."""

from pathlib import Path

import pytest

from nnunetv2_lngswr.installation import doctor as doctoring
from nnunetv2_lngswr.installation.doctor import doctor
from nnunetv2_lngswr.installation.register import SHIM_NAME, register, shim_source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fake_probes(monkeypatch):
    """Answers in place of the child processes: {part of the code: (worked, line)}."""
    answers = {
        "import torchvision": (True, "0.28.0"),
        "trainers": (True, "40"),
        "import torch;": (True, "2.13.0 cpu"),
    }

    class Probe:
        def __init__(self, code):
            self.code = code

        def result(self):
            return next(answer for part, answer in answers.items() if part in self.code)

    monkeypatch.setattr(doctoring, "_Probe", Probe)
    return answers


def finding(topic: str):
    return next(f for f in doctor() if f.topic == topic)


def test_doctor_finds_nothing_wrong_once_registered_and_changes_nothing(trainers, fake_probes):
    assert finding("trainer shim").state == "wrong"
    assert not (trainers / SHIM_NAME).exists()
    register()
    assert [f for f in doctor() if f.state == "wrong"] == []
    assert "CPU only" in finding("torch").value


@pytest.mark.parametrize(
    "content, state", [(b"mine = 1\n", "foreign"), (b"# lngswr-shim: old\n", "outdated")]
)
def test_doctor_tells_the_state_of_the_shim(shim, fake_probes, content, state):
    shim.write_bytes(content)
    found = finding("trainer shim" if shim.name == SHIM_NAME else "planner shim")
    assert (
        found.state == "wrong" and found.value.startswith(state) and "lngswr register" in found.fix
    )


def test_doctor_names_what_does_not_import(trainers, fake_probes):
    fake_probes["import torch;"] = (False, "ImportError: libcudart.so.13 not found")
    fake_probes["import torchvision"] = (
        False,
        "RuntimeError: operator torchvision::nms does not exist",
    )
    fake_probes["trainers"] = (False, "ImportError: x")
    assert finding("torch").state == finding("trainers").state == "wrong"
    assert "libcudart" in finding("torch").value
    # nnU-Net and the shim need no torchvision
    assert finding("torchvision").state == "note" and "nms" in finding("torchvision").value


def test_doctor_accepts_the_variable_where_torchvision_imports(trainers, fake_probes, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(shim_source().parent))
    assert finding("trainer shim").state == "ok"
    assert (
        finding("planner shim").state == "note" and "lngswr register" in finding("planner shim").fix
    )
    fake_probes["import torchvision"] = (False, "RuntimeError: nms")
    assert finding("trainer shim").state == "wrong"


def test_doctor_warns_of_a_repository_root_in_the_variable(trainers, fake_probes, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(ROOT))
    found = finding("nnUNet_extTrainer")
    assert found.state == "note" and "setup.py" in found.fix


@pytest.mark.parametrize(
    ("name", "state"),
    [("nnUNet_raw", "wrong"), ("nnUNet_preprocessed", "note"), ("nnUNet_results", "note")],
)
def test_doctor_wants_a_folder_of_data_and_lets_nnunet_make_the_others(
    trainers, fake_probes, monkeypatch, tmp_path, name, state
):
    monkeypatch.setenv(name, str(tmp_path / "missing"))
    found = finding(name)
    assert found.state == state and "missing is not a folder" in found.value
    monkeypatch.setenv(name, str(tmp_path))
    assert finding(name).state == "ok"
    monkeypatch.delenv(name)
    assert finding(name).value == "not set"


def test_doctor_without_nnunet(without_installed_nnunet, fake_probes):
    assert finding("nnunetv2").state == "wrong" and "pip install" in finding("nnunetv2").fix
