# lngswr-shim: written by `lngswr register`, removed by `lngswr unregister`; keep this line, by
# which they know the file.
"""Lets nnU-Net find the trainers of nnunetv2_lngswr.

For `nnUNetv2_train ... -tr nnUNetTrainerLNGSWR`. nnU-Net imports every module
of this folder whenever it looks for a trainer. So this one defines nothing and raises nothing once
nnunetv2_lngswr is uninstalled, while an error inside an installed nnunetv2_lngswr stays visible.
"""

from importlib.util import find_spec

_package = find_spec("nnunetv2_lngswr")
# without an origin it is only a folder that an uninstall left behind
if _package is not None and _package.origin is not None:
    from nnunetv2_lngswr import trainers as _trainers

    globals().update({name: getattr(_trainers, name) for name in _trainers.__all__})
