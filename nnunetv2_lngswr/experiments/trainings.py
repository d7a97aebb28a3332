"""What nnU-Net leaves of a training."""

from pathlib import Path


def has_ended(fold: Path) -> bool:
    """Whether the training of a fold's folder has ended, its validation included.

    One of the two is not enough: `nnUNetv2_train --val --val_best` leaves a validation of a
    training that was cut off, and the checkpoint is there before its validation.
    """
    files = (fold / "checkpoint_final.pth", fold / "validation" / "summary.json")
    return all(file.is_file() for file in files)
