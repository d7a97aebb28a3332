# lngswr-shim: written by `lngswr register`, removed by `lngswr unregister`; keep this line, by
# which they know the file.
"""Lets nnU-Net find the planners of nnunetv2_lngswr.

For `nnUNetv2_plan_experiment ... -pl nnUNetPlannerLNGSWR`. nnU-Net imports every module
of this folder whenever it looks for a planner. So this one defines nothing and raises nothing once
nnunetv2_lngswr is uninstalled, while an error inside an installed nnunetv2_lngswr stays visible.
"""

from importlib.util import find_spec

_package = find_spec("nnunetv2_lngswr")
# without an origin it is only a folder that an uninstall left behind
if _package is not None and _package.origin is not None:
    from nnunetv2_lngswr import planners as _planners

    globals().update({name: getattr(_planners, name) for name in _planners.__all__})
