"""Registration against stand-ins of nnU-Net: the files it puts there, refuses and takes out."""

import errno
import os
import pkgutil
import sys
import threading
from pathlib import Path

import pytest

from nnunetv2_lngswr.installation import register as registration
from nnunetv2_lngswr.installation.register import (
    PLANNER_SHIM_NAME,
    SHIM_NAME,
    find_nnunet,
    register,
    shim_source,
    shim_state,
    unregister,
)
from tests.installation.stand_in import make_nnunet, put_first

ROOT = Path(__file__).resolve().parents[2]


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


def at_once(*functions):
    """Call them at the same time; returns what was raised."""
    raised, ready = [], threading.Barrier(len(functions))

    def call(function):
        ready.wait()
        try:
            function()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=call, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_calls_at_once_leave_whole_shims_or_none(trainers):
    shims = registration._shims_of(trainers)
    for _ in range(10):
        assert at_once(register, register, register) == []
        assert [shim_state(shim) for shim in shims] == ["current", "current"]
        assert at_once(unregister, unregister) == []
        assert [shim_state(shim) for shim in shims] == ["absent", "absent"]
    left = [p.name for shim in shims for p in shim.parent.iterdir() if p.name.startswith(".")]
    assert left == []


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
