"""What tables, pictures and pages call the norms, in the order in which they show them."""

NORMS = {"linf": "Linf", "l2": "L2"}
NORMS_WITH_UNIT = {"linf": "Linf", "l2": "L2 (RMS)"}
NORM_TITLES = {"linf": "Linf", "l2": "L2 (root mean square per voxel)"}
