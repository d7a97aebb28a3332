"""A disk that fills while a checkpoint is written: the old one stays whole, and nothing beside it.

A limit on the size of files stands for the disk: the system refuses the write, as it does there.
"""

from pathlib import Path

import pytest
import torch

from nnunetv2_lngswr.trainers import nnUNetTrainerLNGSWR, nnUNetTrainerVanilla
from nnunetv2_lngswr.training.warm_start import warm_start_checkpoint
from tests import tiny_dataset
from tests.training.tiny_training import SHORT

resource = pytest.importorskip("resource", reason="Windows has no such limit")
SMALL = 1 << 14


@pytest.fixture
def full_disk():
    """full_disk(): from then on no file grows beyond SMALL; full_disk(False): mended."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(full=True):
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL if full else soft, hard))

    yield fill
    fill(False)


def make_trainer(plans, kind):
    trainer = tiny_dataset.make_trainer(kind, plans, entry=SHORT)
    trainer.initialize()
    return trainer, Path(trainer.output_folder) / "checkpoint_latest.pth"


def test_a_trainings_checkpoint(plans, full_disk):
    trainer, path = make_trainer(plans, nnUNetTrainerLNGSWR)
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()
    assert len(before) > SMALL
    trainer.current_epoch += 1
    full_disk()
    with pytest.raises((RuntimeError, OSError)):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]
    full_disk(False)
    trainer.save_checkpoint(str(path))
    assert torch.load(path, weights_only=False)["current_epoch"] == 2


def test_a_warm_start(plans, full_disk, tmp_path):
    trainer, vanilla = make_trainer(plans, nnUNetTrainerVanilla)
    trainer.save_checkpoint(str(vanilla))
    path = tmp_path / "start" / "start.pth"
    path.parent.mkdir()
    warm_start_checkpoint(vanilla, path)
    before = path.read_bytes()
    full_disk()
    with pytest.raises(OSError, match="No space left on device"):
        warm_start_checkpoint(vanilla, path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    full_disk(False)
    warm_start_checkpoint(vanilla, path)
