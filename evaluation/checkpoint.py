"""Reading nnU-Net checkpoints without running what is in them.

torch.load(weights_only=True) refuses an ordinary nnU-Net checkpoint, because its log holds numpy scalars. Scalars and dtypes of numpy are data,
so they are allowed here; anything else is named and refused.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import torch

# numpy 1 wrote numpy.core, numpy 2 writes numpy._core
_SCALAR = np._core.multiarray.scalar
_ALLOWED = [
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(t for t in vars(np.dtypes).values() if isinstance(t, type) and issubclass(t, np.dtype) and t.__name__ != "ObjectDType"),
]


def load_checkpoint(path: Path, *, trust: bool = False) -> dict:
    """The checkpoint's dict on the CPU. ValueError that names the types outside the allow-list, or a file that is no nnU-Net checkpoint.
    `trust`: unpickle whatever is in the file, which runs its code."""
    if trust:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    else:
        try:
            with torch.serialization.safe_globals(_ALLOWED):
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path} holds {_refused(path)}, which could run code when loaded, and was not loaded; "
                "pass --trust-checkpoint (trust_checkpoint=True) if you trust its source"
            ) from error
        except (RuntimeError, EOFError) as error:
            raise ValueError(f"{path} is no readable checkpoint: {error}") from error
    missing = [k for k in ("network_weights", "trainer_name", "init_args") if not isinstance(checkpoint, dict) or k not in checkpoint]
    if missing:
        raise ValueError(f"{path} is no nnU-Net v2 checkpoint: {', '.join(missing)} missing")
    return checkpoint


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refused(path: Path) -> str:
    with torch.serialization.safe_globals(_ALLOWED):
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except (RuntimeError, ValueError, pickle.UnpicklingError):
            # files of the format before zip archives cannot be listed
            names = []
    return ", ".join(names) if names else "objects other than tensors, numbers and numpy scalars"
