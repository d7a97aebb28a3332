"""Times in turns, peak memory, the profile of a branch, and what a figure must be quoted with."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.experiments.overhead.arms import Arm
from nnunetv2_lngswr.method.network import Branch

# glibc keeps freed blocks and its heap fragments; with these a process's peak is what was live
RETURN_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
}


WARM_UP = 3
"""Turns: guided noise is compiled in the second, since it knows nothing in the first."""


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
) -> dict[str, dict[str, Any]]:
    """Time arms in turns.

    Parameters
    ----------
    arms
        By name, one of them "vanilla"; they have the methods `kinds`.
    repeats
        Turns of each arm after those that warm up.
    device
        "cpu" or "cuda".
    kinds
        Names of the methods.

    Returns
    -------
    dict
        {arm: {kind: {"median_s", "ratio" to vanilla, "ratio_min", "ratio_max"}}}.
    """
    result = {}
    for kind in kinds:
        seconds = {name: [] for name in arms}
        for turn in range(-WARM_UP, repeats):
            for name, arm in arms.items():
                spent = timed(getattr(arm, kind), device)
                if turn >= 0:
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


def profile(
    plan: Mapping[str, Any], vanilla_step_s: float, repeats: int, device: str
) -> list[dict[str, Any]]:
    """Time the parts of each branch of LNG-SWR alone, on a feature map of its shape.

    Parameters
    ----------
    plan
        As in PLANS.
    vanilla_step_s
        Seconds of vanilla's train step.
    repeats
        Times that each part runs after one that warms up.
    device
        "cpu" or "cuda".

    Returns
    -------
    list of dict
        Per branch its name, shape, {part: seconds}, and their sum as a share of vanilla's step.
    """
    arm = Arm("LNG-SWR", plan, device)
    assert arm.lngswr is not None
    rows = []
    for name, shape in _shapes(arm).items():
        x = torch.randn(shape, device=device, requires_grad=name != "input")
        seconds = {}
        for part, work in _parts(dict(arm.lngswr.branches())[name], x).items():
            spent = [timed(work, device) for _ in range(repeats + 1)]
            seconds[part] = statistics.median(spent[1:])
        share = sum(seconds.values()) / vanilla_step_s
        rows.append({"branch": name, "shape": list(shape), "seconds": seconds, "share": share})
    return rows


def _shapes(arm: Arm) -> dict[str, torch.Size]:
    """The shape of every branch's feature map, (batch, channels, *spatial)."""
    assert arm.lngswr is not None
    shapes, hooks = {}, []
    for name, branch in arm.lngswr.branches():

        def note(module, args, output, name=name):
            shapes[name] = args[0].shape

        hooks.append(branch.register_forward_hook(note))
    arm.infer()
    for hook in hooks:
        hook.remove()
    return shapes


def _parts(branch: Branch, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The parts of a branch of LNG-SWR by name, each to be run on `x` alone."""
    prior, noise, reconstruction = branch.prior, branch.noise, branch.reconstruction
    assert prior is not None and noise is not None
    grad = torch.randn_like(x)
    branch.train()
    sd = prior.observe(x)
    parts: dict[str, Callable[[], object]] = {
        "prior": lambda: prior.observe(x),
        "noise": lambda: noise(x.detach(), sd),
    }
    if reconstruction is not None:
        gain = prior.gain()
        parts["reconstruction"] = lambda: reconstruction(x, gain).backward(grad)
    return parts


def peak_memory(
    name: str, plan: Mapping[str, Any], device: str, *, compiled: bool = False
) -> float:
    """Return the memory of a training in MiB. To be called in a process of its own.

    That of the network, its gradients and optimiser, and what a train step adds to them.

    Parameters
    ----------
    name, plan, device, compiled
        As in `Arm`.
    """
    arm = Arm(name, plan, device, compiled=compiled)
    for _ in range(WARM_UP):
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
    """Return this process's memory in MiB: "VmRSS" now, "VmHWM" the peak."""
    # not getrusage: its ru_maxrss starts at that of the process that forked this one
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def conditions(command: str, device: str, threads: int) -> dict[str, Any]:
    """Return what a figure must be quoted with."""
    if device == "cuda":
        machine = torch.cuda.get_device_name()
    else:
        machine = f"CPU, {threads} threads, {platform.machine()}"
    return {
        "date": date.today().isoformat(),
        "command": command,
        "device": machine,
        "versions": {
            "torch": torch.__version__,
            "nnunetv2_lngswr": __version__,
            "python": platform.python_version(),
        },
    }
