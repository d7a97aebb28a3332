"""`lngswr benchmark overhead`: train step, inference and peak memory relative to vanilla nnU-Net, and where the rest goes.

The arms take turns within one process, step by step, and the ratio of each arm to vanilla is taken turn by turn, so
that a change of the machine's speed hits both; the median ratio is printed. Peak memory is that of a train step in a fresh process
per arm, less what imports and compiler take, on a CPU with freed memory given back at once. Networks are those nnU-Net builds from the plans; the step is forward, deep
supervision loss, backward, gradient clipping, SGD, and for our arms the prior's update; on CUDA under autocast with a gradient
scaler, as nnU-Net trains there.

The profile times the parts of each branch of LNG-SWR alone, on feature maps of their shapes, as shares of vanilla's step.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch.nn import functional as F

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.method.network import attach, find_lngswr
from nnunetv2_lngswr.trainers import nnUNetTrainerLNG, nnUNetTrainerLNGSWR, nnUNetTrainerSWR
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file

ARMS = {
    "vanilla": None,
    "LNG": nnUNetTrainerLNG.method,
    "SWR": nnUNetTrainerSWR.method,
    "LNG-SWR": nnUNetTrainerLNGSWR.method,
}
PLANS = {
    # those nnU-Net made for Dataset611_ThyroidUS at 128 px and for Dataset621_LungNodule3D, smaller batch and patch
    "2d": {"batch": 10, "patch": (128, 112), "features": (32, 64, 128, 256, 512)},
    "3d": {"batch": 2, "patch": (48, 48, 48), "features": (32, 64, 128, 256)},
    # what nnU-Net plans for large 3D data
    "3d_large": {"batch": 2, "patch": (128, 128, 128), "features": (32, 64, 128, 256, 320, 320)},
}


# glibc keeps freed blocks and its heap fragments; with these a process's peak is what was live
RETURN_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
}


class Arm:
    """One network with its optimiser, and a fixed batch. `compiled`: by torch.compile, as nnU-Net does on CUDA."""

    def __init__(self, name: str, plan: Mapping, device: str, *, compiled: bool = False):
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
        self.forward = torch.compile(self.network) if compiled else self.network
        # as nnU-Net: half precision on CUDA only
        self.scaler = torch.amp.GradScaler("cuda") if device == "cuda" else None
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5
        )
        self.x = torch.randn(plan["batch"], 1, *plan["patch"], device=device)
        self.y = (self.x[:, 0] > 1).long()

    def train_step(self) -> None:
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        with self._autocast():
            for level, logits in enumerate(self.forward(self.x)):
                target = self.y[(slice(None), *[slice(None, None, 2**level)] * (self.y.ndim - 1))]
                loss = loss + F.cross_entropy(logits, target) / 2**level
        if self.scaler is None:
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.lngswr is not None:
            self.lngswr.commit_priors()
            self.lngswr.clamp_gates_()

    @torch.inference_mode()
    def infer(self) -> None:
        self.network.eval()
        self.network.decoder.deep_supervision = False
        with self._autocast():
            self.forward(self.x)
        self.network.decoder.deep_supervision = True

    def bytes_at_rest(self) -> int:
        state = (
            t
            for of in self.optimizer.state.values()
            for t in of.values()
            if isinstance(t, torch.Tensor)
        )
        weights = list(self.network.parameters())
        held = [
            self.x,
            self.y,
            *weights,
            *(w.grad for w in weights if w.grad is not None),
            *self.network.buffers(),
            *state,
        ]
        return sum(t.numel() * t.element_size() for t in held)

    def _autocast(self):
        return nullcontext() if self.scaler is None else torch.autocast("cuda")


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that `work` takes, the device's queue included."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def time_ratios(
    arms: Mapping[str, object],
    repeats: int,
    device: str,
    kinds: tuple[str, ...] = ("train_step", "infer"),
) -> dict:
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


def profile(plan: Mapping, vanilla_step_s: float, repeats: int, device: str) -> list[dict]:
    """Per branch of LNG-SWR: seconds of its parts, alone, on a feature map of its shape, and their sum as a share of vanilla's train step."""
    arm = Arm("LNG-SWR", plan, device)
    shapes = {}
    hooks = [
        branch.register_forward_hook(
            lambda module, args, output, name=name: shapes.update({name: args[0].shape})
        )
        for name, branch in arm.lngswr.branches()
    ]
    arm.infer()
    for hook in hooks:
        hook.remove()
    rows = []
    for name, branch in arm.lngswr.branches():
        x = torch.randn(shapes[name], device=device, requires_grad=name != "input")
        grad = torch.randn_like(x)
        branch.train()
        sd = branch.prior.observe(x)
        parts = {
            "prior": lambda: branch.prior.observe(x),
            "noise": lambda: branch.noise(x.detach(), sd),
        }
        if branch.reconstruction is not None:
            gain = branch.prior.gain()
            parts["reconstruction"] = lambda: branch.reconstruction(x, gain).backward(grad)
        seconds = {}
        for part, work in parts.items():
            seconds[part] = statistics.median([timed(work, device) for _ in range(repeats + 1)][1:])
        rows.append(
            {
                "branch": name,
                "shape": list(x.shape),
                "seconds": seconds,
                "share": sum(seconds.values()) / vanilla_step_s,
            }
        )
    return rows


def peak_memory(name: str, plan: Mapping, device: str, *, compiled: bool = False) -> float:
    """MiB of the network, its gradients and optimiser, and of what a train step adds to them. To be called in a process of its own."""
    arm = Arm(name, plan, device, compiled=compiled)
    for _ in range(2):
        arm.train_step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        arm.train_step()
        return torch.cuda.max_memory_allocated() / 2**20
    # from here on: imports, and what the compiler took and keeps, are not the network's
    rest = memory_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    arm.train_step()
    return memory_mib("VmHWM") - rest + arm.bytes_at_rest() / 2**20


def memory_mib(kind: str) -> float:
    """This process's memory: "VmRSS" now, "VmHWM" the peak."""
    # not getrusage: its ru_maxrss starts at that of the process that forked this one
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def conditions(command: str, device: str, threads: int) -> dict:
    """What a figure must be quoted with."""
    return {
        "date": date.today().isoformat(),
        "command": command,
        "device": torch.cuda.get_device_name()
        if device == "cuda"
        else f"CPU, {threads} threads, {platform.machine()}",
        "versions": {
            "torch": torch.__version__,
            "nnunetv2_lngswr": __version__,
            "python": platform.python_version(),
        },
    }


def benchmark_overhead(
    plans: Sequence[str] = ("2d", "3d"),
    *,
    repeats: int = 9,
    threads: int = 2,
    device: str = "cpu",
    compiled: bool = False,
    output: Path | str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict:
    """Measure, `say` the tables as they come, write overhead.json and overhead.md into `output`, and return what is in the JSON.

    `plans`: of `PLANS`. `repeats`: turns of each arm after one that warms up. Raises ValueError for unknown plans, no turn, a device that is not there.
    """
    unknown = [p for p in plans if p not in PLANS]
    if unknown:
        raise UserError(f"unknown plans {', '.join(unknown)}; there are {', '.join(PLANS)}")
    if repeats < 1 or threads < 1:
        raise UserError(f"repeats and threads must be at least 1, got {repeats} and {threads}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available: -device cpu")
    if device == "cpu" and not Path("/proc/self/status").is_file():
        raise UserError(
            "the peak memory of a process is read from /proc, which this system does not have: use Linux, or -device cuda"
        )
    torch.set_num_threads(threads)
    options = [
        "--repeats",
        str(repeats),
        "--threads",
        str(threads),
        "-device",
        device,
        *(["--compile"] if compiled else []),
    ]
    command = " ".join(["lngswr benchmark overhead --plans", *plans, *options])
    result = {**conditions(command, device, threads), "plans": {}}
    tables = []
    for plan in plans:
        torch.compiler.reset()  # or it would take the next plan for the last one with other sizes, and compile for any size
        arms = {name: Arm(name, PLANS[plan], device, compiled=compiled) for name in ARMS}
        figures = time_ratios(arms, repeats, device)
        del arms
        for name in ARMS:
            child = [
                sys.executable,
                "-m",
                "nnunetv2_lngswr.experiments.overhead",
                name,
                plan,
                str(threads),
                device,
                str(int(compiled)),
            ]
            out = subprocess.run(
                child, check=True, capture_output=True, text=True, env=os.environ | RETURN_MEMORY
            ).stdout
            figures[name]["peak_memory_mib"] = float(out.splitlines()[-1])
        for name in ARMS:
            figures[name]["peak_memory_ratio"] = (
                figures[name]["peak_memory_mib"] / figures["vanilla"]["peak_memory_mib"]
            )
        parts = profile(PLANS[plan], figures["vanilla"]["train_step"]["median_s"], repeats, device)
        result["plans"][plan] = {"plan": PLANS[plan], "arms": figures, "profile": parts}
        tables.append(_markdown(plan, figures, parts))
        say(tables[-1])
    if output is not None:
        Path(output).mkdir(parents=True, exist_ok=True)
        write_file(Path(output) / "overhead.json", json.dumps(result, indent=1) + "\n")
        head = [
            f"# Overhead relative to vanilla nnU-Net\n\n{result['device']}, torch {torch.__version__}, `{command}`"
        ]
        write_file(Path(output) / "overhead.md", "\n\n".join([*head, *tables]) + "\n")
    return result


def _markdown(plan: str, figures: Mapping, parts: Sequence[Mapping]) -> str:
    from nnunetv2_lngswr.utils.markdown import markdown_table

    def ratio(figure: Mapping) -> str:
        return f"{figure['ratio']:.3f} [{figure['ratio_min']:.2f}, {figure['ratio_max']:.2f}]"

    batch, patch = PLANS[plan]["batch"], " x ".join(map(str, PLANS[plan]["patch"]))
    shown = ("prior", "noise", "reconstruction")
    return "\n\n".join([
        f"## {plan}: batch {batch}, patch {patch}, features {PLANS[plan]['features'][0]}..{PLANS[plan]['features'][-1]}",
        markdown_table(
            ["arm", "train step [range]", "inference [range]", "peak memory"],
            [[name, ratio(f["train_step"]), ratio(f["infer"]), f"{f['peak_memory_ratio']:.3f}"] for name, f in figures.items()],
        ),
        "Where LNG-SWR's part of a train step goes (ms, each part alone; reconstruction with its backward):",
        markdown_table(
            ["branch", "features", *shown, "share of vanilla's step"],
            [
                [row["branch"], " x ".join(map(str, row["shape"])), *(f"{1e3 * row['seconds'].get(p, 0):.1f}" for p in shown), f"{row['share']:.1%}"]
                for row in parts
            ],
        ),
    ])  # fmt: skip


if __name__ == "__main__":
    # one arm's peak memory, in a process of its own
    arm_, plan_, threads_, device_, compiled_ = sys.argv[1:]
    torch.set_num_threads(int(threads_))
    print(peak_memory(arm_, PLANS[plan_], device_, compiled=compiled_ == "1"))
