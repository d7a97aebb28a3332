"""Reading nnU-Net checkpoints safely.

A checkpoint is a file from a stranger. It is read with ``weights_only=True`` and an allow-list of
the numpy numbers that nnU-Net's own logging puts there; anything else in it is refused by name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nnunetv2_lngswr.utils.errors import UserError, shortened
from nnunetv2_lngswr.utils.files import atomic_path
from nnunetv2_lngswr.utils.names import some_names

TRUST_ADVICE = "pass --trust-checkpoint (trust_checkpoint=True) if you trust its source"

_SCALAR = np.float64(0).__reduce__()[0]  # what numpy's scalars are made again by
# numpy 1 wrote numpy.core, numpy 2 writes numpy._core
# plain numbers alone: a dtype with fields, made by a pickle, takes bytes of the file for pointers
_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_ALLOWED = [
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in _NUMBERS),
]
_KINDS = {"network_weights": dict, "trainer_name": str, "init_args": dict}
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def load_checkpoint(path: str | os.PathLike, *, trust: bool = False) -> dict:
    """Read an nnU-Net checkpoint on the CPU, executing nothing that it holds.

    Parameters
    ----------
    path
        Of the checkpoint.
    trust
        Unpickle it all, whatever it runs.

    Raises
    ------
    UserError
        No such file, not a checkpoint, objects beyond tensors, containers and numpy scalars, which
        are named, or entries of another type than nnU-Net writes.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder: give a file, such as fold_0/checkpoint_final.pth")
    if not path.is_file():
        raise UserError(f"checkpoint not found: {path}")
    checkpoint = _read(path, trust=trust)
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise UserError(f"{path} is not an nnU-Net v2 checkpoint: it holds a {kind}")
    missing = [k for k in _KINDS if k not in checkpoint]
    if missing:
        raise UserError(f"{path} is not an nnU-Net v2 checkpoint: {', '.join(missing)} missing")
    for key, kind in _KINDS.items():
        if not isinstance(checkpoint[key], kind):
            found = type(checkpoint[key]).__name__
            raise UserError(f"{path}: {key} must be a {kind.__name__}, got {found}")
    weights = checkpoint["network_weights"]
    strange = [k for k, v in weights.items() if not _is_weight(k, v)]
    if strange or not weights:
        said = f"no tensor for {strange[0]}" if strange else "nothing"
        raise UserError(f"{path}: network_weights must hold tensors by name, found {said}")
    return checkpoint


def save_checkpoint(checkpoint: dict, path: str | os.PathLike) -> None:
    """Write a checkpoint, whole or not at all.

    Raises
    ------
    OSError
        A full disk, no permission, a folder that is not there.
    """
    with atomic_path(path) as temporary:
        # torch says of none of these what the system said
        with open(temporary, "wb"):
            pass
        try:
            torch.save(checkpoint, temporary)
        except RuntimeError as error:
            # it could be opened, and torch fails at nothing else but writing
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def refuse_non_finite(network: nn.Module, where: str | os.PathLike) -> None:
    """Refuse weights with which a network computes NaN.

    Parameters
    ----------
    network
        With its weights loaded.
    where
        The checkpoint, for the text.

    Raises
    ------
    UserError
        Names the first tensors that hold NaN, or among the parameters infinity too (a buffer may: a
        mask of attention does).
    """
    parameters = dict(network.named_parameters())
    # on the device meta, which plans may ask for, there are no values at all
    bad = [k for k, v in parameters.items() if v.is_meta or not torch.isfinite(v).all()]
    bad += [k for k, v in network.named_buffers() if v.is_meta or torch.isnan(v).any()]
    if bad:
        raise UserError(
            f"{where}: the weights hold NaN or infinite values, in {some_names(bad, 3)}; the "
            "training has diverged, or the file is damaged: take another checkpoint (-chk)"
        )


def _read(path: Path, *, trust: bool) -> object:
    """What torch loads; UserError for whatever is wrong with the file."""
    with open(path, "rb") as file:
        start = file.read(len(_ZIP))
    # torch would take anything else for a tar file of its first versions
    if start != _ZIP and not start.startswith(_PICKLE):
        raise UserError(f"{path} is not a torch checkpoint: neither a zip archive nor a pickle")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_ALLOWED):
            warnings.simplefilter("ignore")  # of pickle's protocol, of TorchScript
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError:
        raise UserError(
            # without torch's text, which advises to load it unsafely
            f"{path} holds {_refused(path)}, which could run code when loaded, and was not loaded; "
            f"{TRUST_ADVICE}"
        ) from None
    except MemoryError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # torch's answer to a zip archive that is cut
            raise
        raise UserError(f"{path} is not a torch checkpoint, or is damaged: it is cut") from None
    # a damaged pickle ends in whatever its last sound instruction ran into
    except Exception as error:
        text = str(error) or "it ends early"
        if "weights_only" in text:
            text = "of a kind that torch loads by running it"
        raise UserError(
            f"{path} is not a torch checkpoint, or is damaged: {shortened(text, 300)}"
        ) from None


def sha256(path: str | os.PathLike) -> str:
    """Hex digest of a file, by which reports name a checkpoint."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_weight(key: object, value: object) -> bool:
    # a module of its own kind may keep what it likes under _extra_state
    return isinstance(key, str) and (
        isinstance(value, torch.Tensor) or key.endswith("_extra_state")
    )


def _refused(path: Path) -> str:
    names = []
    # the format before zip archives cannot be listed, nor can a damaged one
    with suppress(Exception), torch.serialization.safe_globals(_ALLOWED):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return ", ".join(names) or "objects other than tensors, numbers and numpy scalars"
