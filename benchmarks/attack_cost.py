"""What one attack step costs: time against a plain sliding-window prediction, and peak memory
against the number of windows.

    python -m benchmarks.attack_cost [-o FILE] [--dimensions 2 3] [--device cpu|cuda] \\
        [--repeats 9] [--window-batch-size 1] [--mirroring]

Prints JSON (and writes it to -o). Time: nnU-Net's own predictor (`predictor_s`), our logits without
a graph (`logits_s`), one PGD step (`step_s`) and one that keeps no graphs (`repeated_step_s`) take
turns, so that a busy machine touches all alike; medians and the medians of the ratios taken turn by
turn; networks and cases are those of real low-resolution plans. Memory: one case tiled into 4 and
into 64 windows, without kept graphs and with room for those of four windows, peak of a step in MiB
(CUDA: allocator peak; CPU: bytes held for backward plus the growth of the process's peak, each
tiling in its own process).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from benchmarks.saved_bytes import peak_of_saved_bytes
from benchmarks.saving import command_line, first_paragraph
from evaluation.model.graph_memory import GRAPH_BYTES, bytes_of_graph
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks import Bounds, LabelSpace, SegmentationTarget, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.losses import cross_entropy
from nnunetv2_lngswr.attacks.models import frozen
from nnunetv2_lngswr.experiments.overhead import RETURN_MEMORY, conditions, memory_mib
from nnunetv2_lngswr.utils.files import write_file

# those of Dataset611_ThyroidUS at 128 px and of Dataset621_LungNodule3D, under nnU-Net's plans
FEATURES = {2: (32, 64, 128, 256, 512), 3: (32, 64, 128, 256)}
CASE = {2: (1, 128, 196), 3: (51, 51, 51)}
PATCH = {2: (128, 112), 3: (48, 48, 48)}
# memory, in small: steps of the tiling that cut the memory case into 4 and 64 windows; its patch is
# half of the case along the tiled axes
MEMORY_STEPS = {2: {4: 1.0, 64: 1 / 7}, 3: {4: 1.0, 64: 1 / 7}}
MEMORY_FEATURES = {2: (16, 32, 64), 3: (8, 16, 32)}
MEMORY_CASE = {2: (1, 192, 192), 3: (48, 48, 48)}
MEMORY_PATCH = {2: (96, 96), 3: (48, 24, 24)}


def build(features: tuple[int, ...], dimension: int, device: torch.device) -> torch.nn.Module:
    """An untrained U-Net with these channels per stage."""
    conv, norm = (getattr(torch.nn, f"{n}{dimension}d") for n in ("Conv", "InstanceNorm"))
    strides = (1, *[2] * (len(features) - 1))
    torch.manual_seed(0)
    network = PlainConvUNet(
        1,
        len(features),
        features,
        conv,
        3,
        strides,
        2,
        2,
        2,
        True,
        norm,
        {"affine": True},
        None,
        None,
        torch.nn.LeakyReLU,
        {"inplace": True},
    )
    return network.to(device).eval()


def problem(
    shape: tuple[int, ...], device: torch.device
) -> tuple[torch.Tensor, SegmentationTarget]:
    """(x (1, 1, *shape), its target), random."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 1, *shape), generator=generator).to(device)
    y = torch.randint(0, 2, (1, *shape), generator=generator).to(device)
    return x, LabelSpace.softmax(2).target(y)


def synchronised(device: torch.device) -> float:
    """Seconds, after all that the device was given is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def times(
    dimension: int,
    device: torch.device,
    repeats: int,
    window_batch_size: int,
    mirror_axes: tuple[int, ...],
) -> dict:
    """Seconds of a prediction, of our logits and of a step, and their ratios."""
    network = build(FEATURES[dimension], dimension, device)
    x, target = problem(CASE[dimension], device)
    window, repeating = (
        SlidingWindow(
            [network],
            patch_size=PATCH[dimension],
            mirror_axes=mirror_axes,
            window_batch_size=window_batch_size,
            graph_bytes=graph_bytes,
            autocast=torch.float16 if device.type == "cuda" else None,
        )
        for graph_bytes in (GRAPH_BYTES, 0)
    )
    ball = ThreatModel(norm="linf", epsilon=8 / 255).ball(Bounds.of(x))
    predictor = _predictor(network, PATCH[dimension], device, mirror_axes)
    steps = 4

    def predict() -> None:
        predictor.predict_logits_from_preprocessed_data(x[0].cpu())

    def attack(model: SlidingWindow) -> None:
        generator = torch.Generator().manual_seed(0)
        run_attack("pgd_linf", model, x, target, ball, generator=generator, steps=steps)

    def seconds_of_step(model: SlidingWindow, forward: float) -> float:
        # an attack of T steps is T gradients and one forward pass
        return (elapsed(lambda: attack(model)) - forward) / steps

    def elapsed(run: Callable[[], Any]) -> float:
        start = synchronised(device)
        run()
        return synchronised(device) - start

    names = ("predictor_s", "logits_s", "step_s", "repeated_step_s")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats + 1):
        predicted = elapsed(predict)
        forward = elapsed(lambda: window.logits(x))
        step, repeated = (seconds_of_step(model, forward) for model in (window, repeating))
        if repeat:  # the first round warms up
            for key, value in zip(seconds, (predicted, forward, step, repeated)):
                seconds[key].append(value)
    return {**_medians(seconds), "repeats": repeats, "windows": window.window_count(x)}


def _medians(seconds: dict[str, list[float]]) -> dict:
    """Of the times, and of their ratios turn by turn."""

    def ratios(over: str, under: str) -> list[float]:
        return [a / b for a, b in zip(seconds[over], seconds[under])]

    of_prediction = ratios("step_s", "predictor_s")
    repeated = ratios("repeated_step_s", "predictor_s")
    return {
        **{name: statistics.median(values) for name, values in seconds.items()},
        "step_over_logits": statistics.median(ratios("step_s", "logits_s")),
        "step_over_predictor": statistics.median(of_prediction),
        "step_over_predictor_range": [min(of_prediction), max(of_prediction)],
        "repeated_step_over_predictor": statistics.median(repeated),
    }


def memory(dimension: int, device: torch.device, windows: int, kept: int) -> dict:
    """Peak of one step in this process, which must be fresh; `kept`: windows whose graphs are."""
    network = build(MEMORY_FEATURES[dimension], dimension, device)
    x, target = problem(MEMORY_CASE[dimension], device)
    first = x[(..., *map(slice, MEMORY_PATCH[dimension]))].reshape(1, 1, *MEMORY_PATCH[dimension])
    with frozen([network]):
        graph_bytes = kept * bytes_of_graph(network, first)
    window = SlidingWindow(
        [network],
        patch_size=MEMORY_PATCH[dimension],
        tile_step_size=MEMORY_STEPS[dimension][windows],
        graph_bytes=graph_bytes,
    )
    assert window.window_count(x) == windows
    before = memory_mib("VmHWM")
    found = {"windows": windows, "kept": kept, "kept_mib": graph_bytes / 2**20}

    def step() -> None:
        window.value_and_gradient(x, lambda z: cross_entropy(z, target))

    step()  # the first gradient measures a window by hooks of its own, which hide it from ours
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return {
            **found,
            "allocator_peak_mib": torch.cuda.max_memory_allocated(device) / 2**20,
        }
    peak = peak_of_saved_bytes(step)
    after = memory_mib("VmHWM")
    return {
        **found,
        "graph_peak_mib": peak / 2**20,
        "process_peak_growth_mib": after - before,
    }


def _predictor(
    network, patch_size, device: torch.device, mirror_axes: tuple[int, ...]
) -> nnUNetPredictor:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints advice on CPU
        predictor = nnUNetPredictor(
            device=device,
            use_mirroring=bool(mirror_axes),
            allow_tqdm=False,
            perform_everything_on_device=device.type == "cuda",
        )
    predictor.network, predictor.list_of_parameters = network, [network.state_dict()]
    predictor.configuration_manager = SimpleNamespace(patch_size=list(patch_size))
    predictor.allowed_mirroring_axes = mirror_axes or None
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=2)
    return predictor


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__))
    parser.add_argument("-o", type=Path, help="write the figures as JSON")
    parser.add_argument("--dimensions", type=int, choices=(2, 3), nargs="+", default=[2, 3])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's")
    parser.add_argument("--window-batch-size", type=int, default=1)
    parser.add_argument("--mirroring", action="store_true", help="along all axes, both sides")
    parser.add_argument("--memory-of", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(json.dumps(memory(arguments.dimensions[0], device, *arguments.memory_of)))
        return
    result = {
        **conditions(command_line("attack_cost", argv), device.type, torch.get_num_threads()),
        "window_batch_size": arguments.window_batch_size,
        "mirroring": arguments.mirroring,
    }
    for dimension in arguments.dimensions:
        result[f"{dimension}d"] = {
            "case": CASE[dimension],
            "patch": PATCH[dimension],
            "features": FEATURES[dimension],
            "time": times(
                dimension,
                device,
                arguments.repeats,
                arguments.window_batch_size,
                tuple(range(dimension)) if arguments.mirroring else (),
            ),
            "memory": [
                _memory_in_a_process_of_its_own(dimension, arguments.device, windows, kept)
                for kept in (0, 4)
                for windows in (4, 64)
            ],
        }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if arguments.o:
        write_file(arguments.o, text)


def _memory_in_a_process_of_its_own(dimension: int, device: str, windows: int, kept: int) -> dict:
    command = [
        sys.executable,
        __file__,
        "--dimensions",
        str(dimension),
        "--device",
        device,
        "--memory-of",
        str(windows),
        str(kept),
    ]
    child = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **RETURN_MEMORY}
    )
    return json.loads(child.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
