"""Reading nnU-Net checkpoints safely.

A checkpoint is a file from a stranger. It is read with ``weights_only=True`` and an allow-list of
the numpy scalar and dtype types that nnU-Net's own logging puts there; anything else in it is
refused by name.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

from nnunetv2_lngswr.utils.errors import UserError

_SCALAR = np.float64(0).__reduce__()[0]  # what numpy's scalars are made again by
# numpy 1 wrote numpy.core, numpy 2 writes numpy._core
_ALLOWED = [
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(t for n, t in vars(np.dtypes).items() if n.endswith("DType") and n != "ObjectDType"),
]


def load_checkpoint(path: str | os.PathLike, *, trust: bool = False) -> dict:
    """Read an nnU-Net checkpoint on the CPU, executing nothing that it holds.

    Parameters
    ----------
    path : of the checkpoint
    trust : unpickle it all, whatever it runs

    Raises
    ------
    UserError
        No such file, not a checkpoint, or objects beyond tensors, containers and numpy scalars,
        which are named.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint not found: {path}")
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            checkpoint = torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError:
        if not zipfile.is_zipfile(path) and not _has_pickle_header(path):
            # without torch's text, which advises to load it unsafely
            raise UserError(
                f"{path} is not a torch checkpoint: neither a zip archive nor a pickle"
            ) from None
        raise UserError(
            f"{path} holds {_refused(path)}, which could run code when loaded, and was not loaded; "
            "pass --trust-checkpoint (trust_checkpoint=True) if you trust its source"
        ) from None
    except (RuntimeError, EOFError) as error:
        raise UserError(
            f"{path} is not a torch checkpoint, or is damaged: {str(error) or 'it ends early'}"
        ) from None
    missing = [
        k
        for k in ("network_weights", "trainer_name", "init_args")
        if not isinstance(checkpoint, dict) or k not in checkpoint
    ]
    if missing:
        raise UserError(f"{path} is not an nnU-Net v2 checkpoint: {', '.join(missing)} missing")
    return checkpoint


def sha256(path: str | os.PathLike) -> str:
    """Hex digest of a file, by which reports name a checkpoint."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_pickle_header(path: Path) -> bool:
    """Whether this could be a checkpoint as it was before zip archives: pickle's mark."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def _refused(path: Path) -> str:
    names = []
    if zipfile.is_zipfile(path):  # the format before zip archives cannot be listed
        with torch.serialization.safe_globals(_ALLOWED):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return ", ".join(names) or "objects other than tensors, numbers and numpy scalars"
