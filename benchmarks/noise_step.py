"""The noise of one training step: by default, and up to the object's size on a moving grid.

    python -m benchmarks.noise_step [--before NOISE.py] [--repeats 15] [--threads 1] [-o FILE.json]

All feature maps of a small U-Net, one after another, in eager code and compiled. The settings take
turns within one process; printed is the median over the turns of a setting's processor time,
divided by the first one's. `--before` is the file of an earlier version, whose default noise is
then the first:

    git show 80a0ca3:nnunetv2_lngswr/method/noise.py > /tmp/before.py
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from nnunetv2_lngswr.experiments.overhead import conditions
from nnunetv2_lngswr.method import noise
from nnunetv2_lngswr.method.scales import scales_up_to
from nnunetv2_lngswr.utils.files import write_file

MAPS = {
    "2d": [
        (10, 1, 64, 64),
        (10, 32, 64, 64),
        (10, 64, 32, 32),
        (10, 128, 16, 16),
        (10, 256, 8, 8),
        (10, 256, 4, 4),
    ],
    "3d": [(2, 1, *[48] * 3), (2, 32, *[48] * 3), (2, 64, *[24] * 3), (2, 128, *[12] * 3)],
}
"""(N, C, *spatial) of the image and of the stages, pooled by 2 each."""
MAX_STRIDE = 32


class Layers(nn.Module):
    """The noise of all feature maps. `module`: whose noise; `options` of each layer."""

    def __init__(self, module: ModuleType, options: list[dict]):
        super().__init__()
        self.layers = nn.ModuleList(module.LayerwiseNoise(0.5, **each) for each in options)

    def forward(self, maps: list[Tensor], sds: list[Tensor]) -> list[Tensor]:
        return [layer(x, sd) for layer, x, sd in zip(self.layers, maps, sds)]


def settings_of(maps: list[tuple[int, ...]], before: ModuleType | None) -> dict[str, Layers]:
    """What takes turns; the first is what the others are compared with."""
    plain: list[dict] = [{} for _ in maps]
    on_grid = []
    for _, _, *extent in maps:
        ratio = [maps[0][2] // extent[0]] * len(extent)
        scales = scales_up_to(MAX_STRIDE, ratio, extent)
        on_grid.append({"scales": scales, "random_grid": True})
    found = {} if before is None else {"before": Layers(before, plain)}
    return {
        **found,
        "default": Layers(noise, plain),
        f"max_stride {MAX_STRIDE}, random_grid": Layers(noise, on_grid),
    }


def measure(
    maps: list[tuple[int, ...]], before: ModuleType | None, repeats: int, *, compiled: bool
) -> dict[str, dict[str, float]]:
    """Processor seconds of each setting, medians over the turns, and their ratio to the first's."""
    xs = [torch.randn(shape) for shape in maps]
    sds = [torch.rand(shape[1]) for shape in maps]
    settings: dict[str, Callable] = {**settings_of(maps, before)}
    if compiled:
        settings = {
            name: torch.compile(layers, fullgraph=True, dynamic=False)
            for name, layers in settings.items()
        }
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    for turn in range(repeats + 2):
        for name, layers in settings.items():
            # of the processor: a machine that others use too counts their time in
            before_it = time.process_time()
            layers(xs, sds)
            if turn > 1:
                seconds[name].append(time.process_time() - before_it)
    first = statistics.median(next(iter(seconds.values())))
    return {
        name: {"median_s": statistics.median(each), "ratio": statistics.median(each) / first}
        for name, each in seconds.items()
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--before", type=Path, help="noise.py of an earlier version")
    parser.add_argument("--repeats", type=int, default=15, help="turns after two that warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", type=Path, help="write the figures as JSON")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    before = None if args.before is None else _imported(args.before)
    given = sys.argv[1:] if argv is None else argv
    command = " ".join(["python", "-m", "benchmarks.noise_step", *given])
    result = {**conditions(command, "cpu", args.threads), "maps": MAPS, "eager": {}, "compiled": {}}
    for kind in ("eager", "compiled"):
        for name, maps in MAPS.items():
            figures = measure(maps, before, args.repeats, compiled=kind == "compiled")
            result[kind][name] = figures
            parts = [
                f"{k} {f['ratio']:.2f} ({f['median_s'] * 1e3:.1f} ms)" for k, f in figures.items()
            ]
            print(f"{kind}, {name}: {', '.join(parts)}", flush=True)
    if args.o:
        write_file(args.o, json.dumps(result, indent=1) + "\n")


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("noise_before", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # torch.compile looks it up
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
