"""What LNG-SWR costs: train step, inference and peak memory relative to vanilla nnU-Net, for a 2D and a 3D plan.

    python benchmarks/overhead.py [--plans 2d 3d] [--repeats 9] [--threads 2] [--device cpu] [-o FILE.json]

The arms take turns within one process, step by step, and the ratio of each arm to vanilla is taken turn by turn, so
that a change of the machine's speed hits both; the median ratio is printed. Peak memory is that of a fresh process
per arm, less what the imports take. Networks are those nnU-Net builds from the plans; the step is forward, deep
supervision loss, backward, gradient clipping, SGD, and for our arms the prior's update.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, from a clone that is not installed

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch.nn import functional as F

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.files import write_file
from nnunetv2_lngswr.network import attach, find_lngswr
from nnunetv2_lngswr.trainers import nnUNetTrainerLNG, nnUNetTrainerLNGSWR, nnUNetTrainerSWR

ARMS = {
    "vanilla": None,
    "LNG": nnUNetTrainerLNG.method,
    "SWR": nnUNetTrainerSWR.method,
    "LNG-SWR": nnUNetTrainerLNGSWR.method,
}
PLANS = {  # those nnU-Net made for Dataset611_ThyroidUS at 128 px and for Dataset621_LungNodule3D, smaller batch and patch
    "2d": {"batch": 10, "patch": (128, 112), "features": (32, 64, 128, 256, 512)},
    "3d": {"batch": 2, "patch": (48, 48, 48), "features": (32, 64, 128, 256)},
}


class Arm:
    """One network with its optimiser, and a fixed batch."""

    def __init__(self, name: str, plan: dict, device: str):
        rank, stages = len(plan["patch"]), len(plan["features"])
        torch.manual_seed(0)
        self.network = get_network_from_plans(
            "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            {
                "n_stages": stages,
                "features_per_stage": plan["features"],
                "conv_op": f"torch.nn.modules.conv.Conv{rank}d",
                "kernel_sizes": [[3] * rank] * stages,
                "strides": [[1] * rank] + [[2] * rank] * (stages - 1),
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{rank}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            ["conv_op", "norm_op", "dropout_op", "nonlin"],
            1,
            2,
            deep_supervision=True,
        )
        if ARMS[name] is not None:
            attach(self.network, ARMS[name])
        self.network.to(device)
        self.lngswr = find_lngswr(self.network)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
        self.x = torch.randn(plan["batch"], 1, *plan["patch"], device=device)
        self.y = (self.x[:, 0] > 1).long()

    def train_step(self) -> None:
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for level, logits in enumerate(self.network(self.x)):
            target = self.y[(slice(None), *[slice(None, None, 2**level)] * (self.y.ndim - 1))]
            loss = loss + F.cross_entropy(logits, target) / 2**level
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        if self.lngswr is not None:
            self.lngswr.commit_priors()
            self.lngswr.project()

    @torch.inference_mode()
    def infer(self) -> None:
        self.network.eval()
        self.network.decoder.deep_supervision = False
        self.network(self.x)
        self.network.decoder.deep_supervision = True


def timed(work, device: str) -> float:
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def time_ratios(arms: dict, repeats: int, device: str, kinds: tuple[str, ...] = ("train_step", "infer")) -> dict:
    """{arm: {kind: {"median_s", "ratio" to the arm "vanilla", "ratio_min", "ratio_max"}}}, for arms that have the methods `kinds`."""
    result = {}
    for kind in kinds:
        seconds = {name: [] for name in arms}
        for turn in range(repeats + 1):
            for name, arm in arms.items():
                spent = timed(getattr(arm, kind), device)
                if turn:  # the first turn warms up
                    seconds[name].append(spent)
        for name in arms:
            ratios = [s / v for s, v in zip(seconds[name], seconds["vanilla"])]
            result.setdefault(name, {})[kind] = {
                "median_s": statistics.median(seconds[name]),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
            }
    return result


def peak_memory(name: str, plan: dict, device: str) -> float:
    """MiB beyond the imports, over three train steps. To be called in a process of its own."""
    if device != "cpu":
        arm = Arm(name, plan, device)
        for _ in range(3):
            arm.train_step()
        return torch.cuda.max_memory_allocated() / 2**20
    before = _peak_rss_mib()
    arm = Arm(name, plan, device)
    for _ in range(3):
        arm.train_step()
    return _peak_rss_mib() - before


def _peak_rss_mib() -> float:
    # not getrusage: its ru_maxrss starts at that of the process that forked this one
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def conditions(script: str, argv: list[str] | None, args: argparse.Namespace) -> dict:
    """What a figure must be quoted with."""
    return {
        "date": date.today().isoformat(),
        "command": " ".join(["python", script, *(sys.argv[1:] if argv is None else argv)]),
        "device": torch.cuda.get_device_name() if args.device != "cpu" else f"CPU, {args.threads} threads, {platform.machine()}",
        "versions": {"torch": torch.__version__, "nnunetv2_lngswr": __version__, "python": platform.python_version()},
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plans", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--repeats", type=int, default=9, help="turns of each arm after one that warms up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu (Linux, for the peak memory) or cuda")
    parser.add_argument("-o", type=Path, help="write the figures as JSON")
    parser.add_argument("--peak-memory-of", choices=list(ARMS), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.peak_memory_of:
        print(peak_memory(args.peak_memory_of, PLANS[args.plans[0]], args.device))
        return
    result = {**conditions("benchmarks/overhead.py", argv, args), "plans": {}}
    for plan in args.plans:
        figures = time_ratios({name: Arm(name, PLANS[plan], args.device) for name in ARMS}, args.repeats, args.device)
        for name in ARMS:
            child = [sys.executable, __file__, "--plans", plan, "--threads", str(args.threads), "--device", args.device]
            out = subprocess.run([*child, "--peak-memory-of", name], check=True, capture_output=True, text=True).stdout
            figures[name]["peak_memory_mib"] = float(out.splitlines()[-1])
        for name in ARMS:
            figures[name]["peak_memory_ratio"] = figures[name]["peak_memory_mib"] / figures["vanilla"]["peak_memory_mib"]
        result["plans"][plan] = {"plan": PLANS[plan], "arms": figures}
        print(f"{plan}: {PLANS[plan]}")
        print(f"  {'arm':<8} {'train step':>24} {'inference':>24} {'peak memory':>12}")
        for name, f in figures.items():
            cells = [f"{f[k]['ratio']:.3f} [{f[k]['ratio_min']:.2f}, {f[k]['ratio_max']:.2f}]" for k in ("train_step", "infer")]
            print(f"  {name:<8} {cells[0]:>24} {cells[1]:>24} {f['peak_memory_ratio']:>12.3f}")
    if args.o:
        write_file(args.o, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
