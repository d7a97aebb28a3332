"""Which device an evaluation runs on."""

import os

from nnunetv2_lngswr.utils.errors import UserError


def find_device(name: str | None) -> str:
    """The device of that name; UserError where there is none. None: CUDA where there is one."""
    import torch  # not at the top: names are checked without it

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    # what nnU-Net predicts on; torch knows more, such as meta, which computes nothing
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device must be cpu, cuda, cuda:N or mps, got {name!r}")
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[device.type]:
        raise UserError(f"device {name} was asked for, and torch finds none; use -device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name} was asked for, and torch finds {torch.cuda.device_count()} (cuda:0 ...)"
        )
    return str(device)
