"""`lngswr demo`: the whole chain on phantom data, by commands as one would type them.

generate -> nnUNetv2_plan_and_preprocess -> smaller plans and patient-wise splits -> nnUNetv2_train
-> nnUNetv2_predict -> nnUNetv2_evaluate_folder -> lngswr evaluate -> table and picture. Everything
lands below one output folder, with a log per step. A step that has ended is not repeated by the
next call, an interrupted training goes on from its last checkpoint.

The budget is a few hundred iterations of a small network: the result shows that the chain works,
not what the method can do.
"""

from nnunetv2_lngswr.experiments.demo.plans import BUDGETS, shrink_plans
from nnunetv2_lngswr.experiments.demo.run import MARKER, run_demo

__all__ = ["BUDGETS", "MARKER", "run_demo", "shrink_plans"]
