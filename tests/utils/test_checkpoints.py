"""Checkpoints are written whole or not at all. How strangers' are read: test_bad_models.py and
test_strangers.py of the evaluation, and the tests of the warm start."""

import errno
import subprocess
import sys
import textwrap

import pytest
import torch

from nnunetv2_lngswr.utils.checkpoints import refuse_non_finite, save_checkpoint


def test_it_reads_back(tmp_path):
    save_checkpoint({"a": torch.ones(3)}, tmp_path / "c.pth")
    assert torch.equal(torch.load(tmp_path / "c.pth")["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]


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
