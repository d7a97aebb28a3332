"""The benchmark from its options to its tables."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nnunetv2_lngswr.experiments.overhead.arms import ARMS, PLANS, Arm
from nnunetv2_lngswr.experiments.overhead.measuring import (
    RETURN_MEMORY,
    conditions,
    profile,
    time_ratios,
)
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.markdown import markdown_table
from nnunetv2_lngswr.utils.output_folder import output_folder
from nnunetv2_lngswr.utils.processes import capture_command

PARTS = ("prior", "noise", "reconstruction")


def benchmark_overhead(
    plans: Sequence[str] = ("2d", "3d"),
    *,
    repeats: int = 9,
    threads: int = 2,
    device: str = "cpu",
    compiled: bool = False,
    output: Path | str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure every arm on every plan.

    Parameters
    ----------
    plans
        Of PLANS.
    repeats
        Turns of each arm after those that warm up.
    threads
        Of the CPU.
    device
        "cpu" or "cuda".
    compiled
        By torch.compile, as nnU-Net does on CUDA.
    output
        Folder for overhead.json and overhead.md; None writes nothing.
    say
        Receives the tables as they come.

    Returns
    -------
    dict
        What is in overhead.json.

    Raises
    ------
    UserError
        Unknown plans, no turn, a device that is not there.
    CommandError
        The process that measures an arm's memory failed.
    """
    _check(plans, repeats, threads, device)
    # before minutes of measuring
    folder = None if output is None else output_folder(output)
    torch.set_num_threads(threads)
    command = _command(plans, repeats, threads, device, compiled)
    result = {**conditions(command, device, threads), "plans": {}}
    tables = []
    for plan in plans:
        # or it would take the next plan for the last one with other sizes, and compile for any size
        torch.compiler.reset()
        figures = _figures(plan, repeats, threads, device, compiled)
        parts = profile(PLANS[plan], figures["vanilla"]["train_step"]["median_s"], repeats, device)
        result["plans"][plan] = {"plan": PLANS[plan], "arms": figures, "profile": parts}
        tables.append(_markdown(plan, figures, parts))
        say(tables[-1])
    if folder is not None:
        _write(folder, result, tables)
    return result


def _command(plans: Sequence[str], repeats: int, threads: int, device: str, compiled: bool) -> str:
    """The call that measures this."""
    options = ["--repeats", str(repeats), "--threads", str(threads), "-device", device]
    if compiled:
        options.append("--compile")
    return " ".join(["lngswr benchmark overhead --plans", *plans, *options])


def _check(plans: Sequence[str], repeats: int, threads: int, device: str) -> None:
    unknown = [p for p in plans if p not in PLANS]
    if unknown:
        raise UserError(f"unknown plans {', '.join(unknown)}; there are {', '.join(PLANS)}")
    if repeats < 1 or threads < 1:
        raise UserError(f"repeats and threads must be at least 1, got {repeats} and {threads}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available: -device cpu")
    if device == "cpu" and not Path("/proc/self/status").is_file():
        raise UserError(
            "the peak memory of a process is read from /proc, which this system does not have: "
            "use Linux, or -device cuda"
        )


def _figures(
    plan: str, repeats: int, threads: int, device: str, compiled: bool
) -> dict[str, dict[str, Any]]:
    """Times and peak memory of every arm."""
    arms = {name: Arm(name, PLANS[plan], device, compiled=compiled) for name in ARMS}
    figures = time_ratios(arms, repeats, device)
    del arms
    for name in ARMS:
        words = [name, plan, str(threads), device, str(int(compiled))]
        figures[name]["peak_memory_mib"] = _memory_of_a_process(words)
    vanilla = figures["vanilla"]["peak_memory_mib"]
    for name in ARMS:
        figures[name]["peak_memory_ratio"] = figures[name]["peak_memory_mib"] / vanilla
    return figures


def _memory_of_a_process(words: Sequence[str]) -> float:
    command = ["python", "-m", "nnunetv2_lngswr.experiments.overhead", *words]
    return float(capture_command(command, environment=RETURN_MEMORY).splitlines()[-1])


def _write(output: Path, result: Mapping[str, Any], tables: Sequence[str]) -> None:
    head = (
        "# Overhead relative to vanilla nnU-Net\n\n"
        f"{result['device']}, torch {torch.__version__}, `{result['command']}`"
    )
    write_file(output / "overhead.json", json.dumps(result, indent=1) + "\n")
    write_file(output / "overhead.md", "\n\n".join([head, *tables]) + "\n")


def _markdown(plan: str, figures: Mapping, parts: Sequence[Mapping]) -> str:
    its = PLANS[plan]
    features = f"{its['features'][0]}..{its['features'][-1]}"
    patch = " x ".join(map(str, its["patch"]))
    blocks = [
        f"## {plan}: batch {its['batch']}, patch {patch}, features {features}",
        markdown_table(
            ["arm", "train step [range]", "inference [range]", "peak memory"],
            [_arm_row(name, figure) for name, figure in figures.items()],
        ),
        "Where LNG-SWR's part of a train step goes "
        "(ms, each part alone; reconstruction with its backward):",
        markdown_table(
            ["branch", "features", *PARTS, "share of vanilla's step"],
            [_branch_row(row) for row in parts],
        ),
    ]
    return "\n\n".join(blocks)


def _arm_row(name: str, figure: Mapping) -> list[str]:
    memory = f"{figure['peak_memory_ratio']:.3f}"
    return [name, _ratio(figure["train_step"]), _ratio(figure["infer"]), memory]


def _ratio(figure: Mapping) -> str:
    return f"{figure['ratio']:.3f} [{figure['ratio_min']:.2f}, {figure['ratio_max']:.2f}]"


def _branch_row(row: Mapping) -> list[str]:
    milliseconds = (f"{1e3 * row['seconds'].get(part, 0):.1f}" for part in PARTS)
    return [row["branch"], " x ".join(map(str, row["shape"])), *milliseconds, f"{row['share']:.1%}"]
