"""What one attack step costs: time against a plain sliding-window prediction, and peak memory against the number of windows.

    python benchmarks/attack_cost.py [-o FILE] [--dimensions 2 3] [--device cpu|cuda] [--repeats 9] [--window-batch-size 1]

Prints JSON (and writes it to -o). Time: nnU-Net's own predictor (`predictor_s`), our logits without a graph (`logits_s`) and one PGD step
(`step_s`) take turns, so that a busy machine touches all alike; medians and the medians of the ratios taken turn by turn; networks and cases
are those of real low-resolution plans. Memory: one case tiled into 4 and into 64 windows, peak of a step in MiB (CUDA: allocator
peak; CPU: bytes held for backward plus the growth of the process's peak, each tiling in its own process).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # as a script, from a clone that is not installed

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.attacks import Bounds, LabelSpace, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.losses import cross_entropy
from nnunetv2_lngswr.experiments.overhead import RETURN_MEMORY, memory_mib
from nnunetv2_lngswr.utils.files import write_file

# those of Dataset611_ThyroidUS at 128 px and of Dataset621_LungNodule3D, under nnU-Net's plans
FEATURES = {2: (32, 64, 128, 256, 512), 3: (32, 64, 128, 256)}
CASE = {2: (1, 128, 196), 3: (51, 51, 51)}
PATCH = {2: (128, 112), 3: (48, 48, 48)}
# memory, in small: step of the tiling that cuts the memory case into 4 and 64 windows; its patch is half of the case along the tiled axes
MEMORY_STEPS = {2: {4: 1.0, 64: 1 / 7}, 3: {4: 1.0, 64: 1 / 7}}
MEMORY_FEATURES = {2: (16, 32, 64), 3: (8, 16, 32)}
MEMORY_CASE = {2: (1, 192, 192), 3: (48, 48, 48)}
MEMORY_PATCH = {2: (96, 96), 3: (48, 24, 24)}


def build(features: tuple[int, ...], dimension: int, device: torch.device) -> torch.nn.Module:
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


def problem(shape: tuple[int, ...], device: torch.device):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 1, *shape), generator=generator).to(device)
    y = torch.randint(0, 2, (1, *shape), generator=generator).to(device)
    return x, LabelSpace.softmax(2).target(y)


def synchronised(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def times(dimension: int, device: torch.device, repeats: int, window_batch_size: int) -> dict:
    network, (x, target) = (
        build(FEATURES[dimension], dimension, device),
        problem(CASE[dimension], device),
    )
    window = SlidingWindow(
        [network],
        patch_size=PATCH[dimension],
        window_batch_size=window_batch_size,
        autocast=torch.float16 if device.type == "cuda" else None,
    )
    ball = ThreatModel(norm="linf", epsilon=8 / 255).ball(Bounds.of(x))
    predictor = _predictor(network, PATCH[dimension], device)
    steps = 4

    def attack():
        run_attack(
            "pgd_linf",
            window,
            x,
            target,
            ball,
            generator=torch.Generator().manual_seed(0),
            steps=steps,
        )

    def logits():
        window.logits(x)

    def predict():
        predictor.predict_logits_from_preprocessed_data(x[0].cpu())

    seconds: dict[str, list[float]] = {"predictor_s": [], "logits_s": [], "step_s": []}
    for repeat in range(repeats + 1):
        for key, run, parts in (
            ("predictor_s", predict, 1),
            ("logits_s", logits, 1),
            ("step_s", attack, None),
        ):
            start = synchronised(device)
            run()
            elapsed = synchronised(device) - start
            if repeat:  # the first round warms up
                # an attack of T steps is T gradients and one forward pass
                seconds[key].append(
                    elapsed / parts if parts else (elapsed - seconds["logits_s"][-1]) / steps
                )
    medians = {k: statistics.median(v) for k, v in seconds.items()}
    ratios = {
        key: [a / b for a, b in zip(seconds["step_s"], seconds[key])]
        for key in ("logits_s", "predictor_s")
    }
    return {
        **medians,
        "step_over_logits": statistics.median(ratios["logits_s"]),
        "step_over_predictor": statistics.median(ratios["predictor_s"]),
        "step_over_predictor_range": [min(ratios["predictor_s"]), max(ratios["predictor_s"])],
        "repeats": repeats,
        "windows": window.window_count(x),
    }


def memory(dimension: int, device: torch.device, windows: int) -> dict:
    """Peak of one step in this process, which must be fresh."""
    network, (x, target) = (
        build(MEMORY_FEATURES[dimension], dimension, device),
        problem(MEMORY_CASE[dimension], device),
    )
    window = SlidingWindow(
        [network],
        patch_size=MEMORY_PATCH[dimension],
        tile_step_size=MEMORY_STEPS[dimension][windows],
    )
    assert window.window_count(x) == windows
    live = peak = 0

    class Saved:
        def __init__(self, tensor):
            nonlocal live, peak
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            live += self.size
            peak = max(peak, live)

        def __del__(self):
            nonlocal live
            live -= self.size

    before = memory_mib("VmHWM")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        window.value_and_gradient(x, lambda z: cross_entropy(z, target))
        return {
            "windows": windows,
            "allocator_peak_mib": torch.cuda.max_memory_allocated(device) / 2**20,
        }
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda s: s.tensor):
        window.value_and_gradient(x, lambda z: cross_entropy(z, target))
    after = memory_mib("VmHWM")
    return {
        "windows": windows,
        "graph_peak_mib": peak / 2**20,
        "process_peak_growth_mib": after - before,
    }


def _predictor(network, patch_size, device: torch.device) -> nnUNetPredictor:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints advice on CPU
        predictor = nnUNetPredictor(
            device=device,
            use_mirroring=False,
            allow_tqdm=False,
            perform_everything_on_device=device.type == "cuda",
        )
    predictor.network, predictor.list_of_parameters = network, [network.state_dict()]
    predictor.configuration_manager = SimpleNamespace(patch_size=list(patch_size))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=2)
    return predictor


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", type=Path, help="write the figures as JSON")
    parser.add_argument("--dimensions", type=int, choices=(2, 3), nargs="+", default=[2, 3])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's")
    parser.add_argument("--window-batch-size", type=int, default=1)
    parser.add_argument("--memory-of", type=int, choices=(4, 64), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(json.dumps(memory(arguments.dimensions[0], device, arguments.memory_of)))
        return
    result = {
        "date": date.today().isoformat(),
        "command": " ".join(
            ["python", "benchmarks/attack_cost.py", *(sys.argv[1:] if argv is None else argv)]
        ),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads, {platform.machine()}",
        "versions": {
            "torch": torch.__version__,
            "nnunetv2_lngswr": __version__,
            "python": platform.python_version(),
        },
        "window_batch_size": arguments.window_batch_size,
    }
    for dimension in arguments.dimensions:
        result[f"{dimension}d"] = {
            "case": CASE[dimension],
            "patch": PATCH[dimension],
            "features": FEATURES[dimension],
            "time": times(dimension, device, arguments.repeats, arguments.window_batch_size),
            "memory": [
                _memory_in_a_process_of_its_own(dimension, arguments.device, windows)
                for windows in (4, 64)
            ],
        }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if arguments.o:
        write_file(arguments.o, text)


def _memory_in_a_process_of_its_own(dimension: int, device: str, windows: int) -> dict:
    command = [
        sys.executable,
        __file__,
        "--dimensions",
        str(dimension),
        "--device",
        device,
        "--memory-of",
        str(windows),
    ]
    child = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **RETURN_MEMORY}
    )
    return json.loads(child.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
