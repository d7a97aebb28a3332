"""Checkpoints are written whole or not at all. How strangers' are read: test_bad_models.py and
test_strangers.py of the evaluation, and the tests of the warm start."""

import errno
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from nnunetv2_lngswr.utils.checkpoints import load_checkpoint, refuse_non_finite, save_checkpoint
from nnunetv2_lngswr.utils.errors import UserError


def test_it_reads_back(tmp_path):
    save_checkpoint({"a": torch.ones(3)}, tmp_path / "c.pth")
    assert torch.equal(torch.load(tmp_path / "c.pth")["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]


@pytest.mark.parametrize(
    "value",
    [
        np.array([(1.0,)], dtype=[("a", "f8")])[0],  # fields may be said to hold objects
        np.datetime64("2026-12-02", "s"),
        np.timedelta64(1, "s"),
        np.bytes_(b"x"),
        np.str_("x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_of_numpy_plain_numbers_alone_are_read(tmp_path, value):
    path, good = tmp_path / "x.pth", {"network_weights": {"a": torch.ones(1)}, "trainer_name": "T"}
    numbers = [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True), np.uint8(1)]
    save_checkpoint({**good, "init_args": {}, "logging": numbers}, path)
    assert load_checkpoint(path)["logging"] == numbers
    save_checkpoint({**good, "init_args": {"configuration": value}}, path)
    with pytest.raises(UserError, match="x.pth"):
        load_checkpoint(path)


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    """A limit on the size of files stands for the full disk."""
    code = f"""
        import resource, signal, torch
        from nnunetv2_lngswr.utils.checkpoints import save_checkpoint
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            save_checkpoint({{"a": torch.ones(100_000)}}, {str(tmp_path / "c.pth")!r})
        except OSError as error:
            print(error.errno, error.filename)
    """
    pytest.importorskip("resource")
    (tmp_path / "c.pth").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == [str(errno.ENOSPC), str(tmp_path / "c.pth")], done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]
    assert (tmp_path / "c.pth").read_text() == "old"


def test_a_missing_folder_is_what_the_system_says(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_checkpoint({}, tmp_path / "absent" / "c.pth")


def test_buffers_may_hold_infinity_and_nothing_else():
    network = torch.nn.BatchNorm1d(2)
    network.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    refuse_non_finite(network, "here")
    with torch.no_grad():
        network.running_mean[0] = torch.nan
        network.weight[0] = torch.inf
    with pytest.raises(ValueError, match="here: .* in weight, running_mean"):
        refuse_non_finite(network, "here")
