"""`lngswr benchmark overhead`: train step, inference and memory relative to vanilla nnU-Net.

The arms take turns within one process, step by step, and the ratio of each arm to vanilla is taken
turn by turn, so that a change of the machine's speed hits both; the median ratio is printed. Peak
memory is that of a train step in a fresh process per arm, less what imports and compiler take, on a
CPU with freed memory given back at once. Networks are those nnU-Net builds from the plans; the step
is forward, deep supervision loss, backward, gradient clipping, SGD, and for our arms the prior's
update; on CUDA under autocast with a gradient scaler, as nnU-Net trains there.

The profile times the parts of each branch of LNG-SWR alone, on feature maps of their shapes, as
shares of vanilla's step.
"""

from nnunetv2_lngswr.experiments.overhead.arms import ARMS, PLANS, Arm
from nnunetv2_lngswr.experiments.overhead.measuring import (
    RETURN_MEMORY,
    conditions,
    memory_mib,
    peak_memory,
    time_ratios,
    timed,
)
from nnunetv2_lngswr.experiments.overhead.run import benchmark_overhead

__all__ = [
    "ARMS",
    "PLANS",
    "RETURN_MEMORY",
    "Arm",
    "benchmark_overhead",
    "conditions",
    "memory_mib",
    "peak_memory",
    "time_ratios",
    "timed",
]
