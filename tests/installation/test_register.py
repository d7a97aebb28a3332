"""Registration against stand-ins of nnU-Net: a folder that looks like its package, with package metadata, first on sys.path."""

import errno
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lngswr.installation import register as registration
from nnunetv2_lngswr.installation.register import (
    PLANNER_SHIM_NAME,
    SHIM_NAME,
    doctor,
    find_nnunet,
    register,
    shim_source,
    shim_state,
    unregister,
)

ROOT = Path(__file__).resolve().parents[2]


def make_nnunet(folder: Path, version: str | None = "2.8.1") -> Path:
    """A stand-in for nnunetv2 in `folder`; returns its trainer folder."""
    trainers = folder / "nnunetv2" / "training" / "nnUNetTrainer"
    trainers.mkdir(parents=True)
    planning = folder / "nnunetv2" / "experiment_planning"
    planning.mkdir()
    for package in (folder / "nnunetv2", trainers.parent, trainers, planning):
        (package / "__init__.py").touch()
    (trainers / "nnUNetTrainer.py").touch()
    if version:
        metadata = folder / f"nnunetv2-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: nnunetv2\nVersion: {version}\n"
        )
    return trainers


def put_first(monkeypatch, folder: Path) -> None:
    # not syspath_prepend: its undo would put back the sys.path of without_installed_nnunet
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    # other tests import the real one, and find_spec answers from here first
    monkeypatch.delitem(sys.modules, "nnunetv2", raising=False)


@pytest.fixture
def trainers(tmp_path, monkeypatch) -> Path:
    folder = make_nnunet(tmp_path / "site")
    put_first(monkeypatch, tmp_path / "site")
    return folder


@pytest.fixture
def without_installed_nnunet(monkeypatch):
    """Hides the nnU-Net that this environment has."""
    real = [
        p
        for p in sys.path
        if not (Path(p) / "nnunetv2").exists()
        and not list(Path(p or ".").glob("nnunetv2-*.dist-info"))
    ]
    monkeypatch.setattr(sys, "path", real)
    monkeypatch.setattr(
        sys,
        "meta_path",
        [
            f
            for f in sys.meta_path
            if "editable" not in getattr(f, "__name__", type(f).__name__).lower()
        ],
    )
    monkeypatch.delitem(sys.modules, "nnunetv2", raising=False)


@pytest.fixture(params=[SHIM_NAME, PLANNER_SHIM_NAME])
def shim(request, trainers) -> Path:
    """Where one of the shims belongs."""
    folder = trainers if request.param == SHIM_NAME else trainers.parents[1] / "experiment_planning"
    return folder / request.param


def action_of(changes, path):
    (change,) = [c for c in changes if c.path == path]
    assert len(changes) == 2
    return change.action


def test_register_puts_the_shipped_shims_beside_nnunets_trainers_and_planners(trainers):
    planning = trainers.parents[1] / "experiment_planning"
    changes = [
        registration.Change("registered", trainers / SHIM_NAME),
        registration.Change("registered", planning / PLANNER_SHIM_NAME),
    ]
    assert register() == changes
    for change in changes:
        assert change.path.read_bytes() == (ROOT / "patches" / change.path.name).read_bytes()
    # nothing else, in particular no temporary file that nnU-Net would import
    assert {m.name for m in pkgutil.iter_modules([str(trainers)])} == {
        "nnUNetTrainer",
        Path(SHIM_NAME).stem,
    }
    assert sorted(p.name for p in trainers.iterdir()) == [
        "__init__.py",
        "nnUNetTrainer.py",
        SHIM_NAME,
    ]
    assert sorted(p.name for p in planning.iterdir()) == ["__init__.py", PLANNER_SHIM_NAME]


def test_registering_twice_changes_nothing(shim):
    register()
    before = os.stat(shim)
    assert action_of(register(), shim) == "unchanged"
    after = os.stat(shim)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_an_older_shim_is_updated(shim):
    shim.write_bytes(shim_source(shim.name).read_bytes() + b"# an older version\n")
    assert shim_state(shim) == "outdated"
    assert action_of(register(), shim) == "updated"
    assert shim_state(shim) == "current"


@pytest.mark.parametrize("action", [register, unregister])
def test_a_foreign_file_is_left_alone_and_nothing_else_is_done(trainers, shim, action):
    register()
    shim.write_text("mine = 1\n")
    others = [p for p in registration._shims_of(trainers) if p != shim]
    if action is register:
        others[0].unlink()
    before = others[0].exists()
    with pytest.raises(ValueError, match="not written by `lngswr register`"):
        action()
    assert shim.read_text() == "mine = 1\n" and others[0].exists() == before


def test_a_link_to_nowhere_is_foreign(shim):
    shim.symlink_to(shim.parent / "gone.py")
    with pytest.raises(ValueError, match="left alone"):
        register()
    assert shim.is_symlink()


def test_unregister_removes_the_shim_and_its_bytecode(shim):
    register()
    cached = shim.parent / "__pycache__" / f"{shim.stem}.{sys.implementation.cache_tag}.pyc"
    cached.parent.mkdir()
    cached.touch()
    assert action_of(unregister(), shim) == "removed"
    assert not shim.exists() and not cached.exists()
    assert action_of(unregister(), shim) == "absent"


@pytest.mark.parametrize("version", ["2.7.9", "2.0", "3.0", "3.1.0"])
def test_a_version_outside_the_range_is_refused(tmp_path, monkeypatch, version):
    folder = make_nnunet(tmp_path / "site", version)
    put_first(monkeypatch, tmp_path / "site")
    with pytest.raises(ValueError, match=rf'nnunetv2 {version} .* pip install "nnunetv2>=2.8,<3"'):
        register()
    assert not (folder / SHIM_NAME).exists()


def test_a_shim_comes_out_of_a_version_outside_the_range(tmp_path, monkeypatch):
    folder = make_nnunet(tmp_path / "site", "3.0")
    put_first(monkeypatch, tmp_path / "site")
    (folder / SHIM_NAME).write_bytes(shim_source().read_bytes())
    assert [c.action for c in unregister()] == ["removed", "absent"]


@pytest.mark.parametrize("version", ["2.8", "2.8.1", "2.10.0", "2.99.dev1"])
def test_versions_in_the_range_are_taken(tmp_path, monkeypatch, version):
    folder = make_nnunet(tmp_path / "site", version)
    put_first(monkeypatch, tmp_path / "site")
    assert find_nnunet() == registration.NNUNet(version, folder)


@pytest.mark.parametrize("action", [register, unregister])
def test_nnunet_missing(without_installed_nnunet, action):
    with pytest.raises(ValueError, match="nnunetv2 is not installed .*pip install"):
        action()


def test_a_folder_left_by_an_uninstall_is_no_nnunet(
    tmp_path, monkeypatch, without_installed_nnunet
):
    left = tmp_path / "site" / "nnunetv2" / "training" / "nnUNetTrainer"
    left.mkdir(parents=True)
    (left / SHIM_NAME).write_bytes(shim_source().read_bytes())
    put_first(monkeypatch, tmp_path / "site")
    with pytest.raises(ValueError, match="nnunetv2 is not installed"):
        register()


def test_nnunet_without_metadata(tmp_path, monkeypatch, without_installed_nnunet):
    make_nnunet(tmp_path / "site", version=None)
    put_first(monkeypatch, tmp_path / "site")
    with pytest.raises(ValueError, match="has no version"):
        register()


def test_read_only_installation_gets_the_variable_to_use(trainers, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # the tests may run as root, whom no permission bit stops
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ValueError) as caught:
        register()
    line = str(caught.value).splitlines()[-1]
    assert line.startswith("export nnUNet_extTrainer=")
    named = Path(line.partition("=")[2])
    assert (named / SHIM_NAME).is_file() and not (named / "setup.py").exists()
    assert sorted(p.name for p in trainers.iterdir()) == ["__init__.py", "nnUNetTrainer.py"]


# --- the shim itself


SHIMS = {SHIM_NAME: "trainers", PLANNER_SHIM_NAME: "planners"}


def run_shim(
    tmp_path: Path, package: dict[str, str], name: str = SHIM_NAME
) -> subprocess.CompletedProcess:
    """Imports the shim where `nnunetv2_lngswr` is made of `package` (file name: content), or is not importable if it is empty."""
    (tmp_path / name).write_bytes(shim_source(name).read_bytes())
    for file, content in package.items():
        (tmp_path / "nnunetv2_lngswr").mkdir(exist_ok=True)
        (tmp_path / "nnunetv2_lngswr" / file).write_text(content)
    code = f"import {Path(name).stem} as m; print(*sorted(n for n in vars(m) if n.startswith('nnUNet')))"
    # -S: no site-packages, so that no installed nnunetv2_lngswr is there
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )


@pytest.mark.parametrize("name, module", SHIMS.items())
def test_the_shim_names_what_the_package_exports(tmp_path, name, module):
    package = {
        "__init__.py": "",
        f"{module}.py": "nnUNetA = 1\nnnUNetB = 2\nnnUNetHidden = 3\n__all__ = ['nnUNetA', 'nnUNetB']\n",
    }
    result = run_shim(tmp_path, package, name)
    assert result.stdout.split() == ["nnUNetA", "nnUNetB"], result.stderr


@pytest.mark.parametrize("name", SHIMS)
@pytest.mark.parametrize(
    "package", [{}, {"left_behind.txt": ""}], ids=["uninstalled", "folder left behind"]
)
def test_the_shim_is_harmless_without_the_package(tmp_path, name, package):
    result = run_shim(tmp_path, package, name)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")


@pytest.mark.parametrize("name, module", SHIMS.items())
def test_an_error_inside_the_package_is_not_hidden(tmp_path, name, module):
    result = run_shim(
        tmp_path, {"__init__.py": "", f"{module}.py": "import does_not_exist_either\n"}, name
    )
    assert result.returncode != 0
    assert "No module named 'does_not_exist_either'" in result.stderr


def test_nnunet_finds_trainers_and_planners_without_timm_and_torchvision(tmp_path):
    """By nnU-Net's own lookup, in a copy of the installed nnU-Net."""
    import importlib.util
    import shutil

    installed = Path(importlib.util.find_spec("nnunetv2").origin).parent
    shutil.copytree(
        installed, tmp_path / "nnunetv2", ignore=shutil.ignore_patterns("__pycache__", *SHIMS)
    )
    for shim in registration._shims_of(tmp_path / "nnunetv2/training/nnUNetTrainer"):
        shim.write_bytes(shim_source(shim.name).read_bytes())
    code = (
        "import sys, nnunetv2; from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        f"assert nnunetv2.__path__[0].startswith({str(tmp_path)!r}), nnunetv2.__path__\n"
        "for name in ('nnUNetTrainerLNGSWR', 'nnUNetTrainerLNG', 'nnUNetTrainerSWR_5epochs', 'nnUNetTrainerVanillaDA5'):\n"
        "    assert find(name).__name__ == name\n"
        "from nnunetv2.utilities.find_class_by_name import recursive_find_python_class as find_class\n"
        "for name in ('nnUNetPlannerLNGSWR', 'nnUNetPlannerLNGSWRResEncL'):\n"
        "    folder = nnunetv2.__path__[0] + '/experiment_planning'\n"
        "    assert find_class(folder, name, current_module='nnunetv2.experiment_planning').__name__ == name\n"
        "assert not {'timm', 'torchvision'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr


# --- doctor


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

    monkeypatch.setattr(registration, "_Probe", Probe)
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


def test_doctor_without_nnunet(without_installed_nnunet, fake_probes):
    assert finding("nnunetv2").state == "wrong" and "pip install" in finding("nnunetv2").fix
