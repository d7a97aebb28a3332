"""One arm's peak memory, in a process of its own: ARM PLAN THREADS DEVICE COMPILED(0 or 1)."""

import sys

import torch

from nnunetv2_lngswr.experiments.overhead.arms import PLANS
from nnunetv2_lngswr.experiments.overhead.measuring import peak_memory

if __name__ == "__main__":
    arm, plan, threads, device, compiled = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(peak_memory(arm, PLANS[plan], device, compiled=compiled == "1"))
