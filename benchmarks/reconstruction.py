"""Selective wavelet reconstruction, beside pytorch_wavelets (2D) and ptwt (2D and 3D).

    python -m benchmarks.reconstruction [--repeats 15] [--threads 2] [--device cpu] [-o FILE.json]

Forward and backward. Haar, one level, gains per channel and band, gradients of the features and of
the gains; feature maps of nnU-Net's first stages. All take turns within one process; printed is the
median over the turns of a library's time divided by ours. Beside it, forward alone over a copy of
the same tensor. The results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import ptwt
import pytorch_wavelets
import torch
from torch import Tensor

from nnunetv2_lngswr.experiments.overhead import conditions, timed
from nnunetv2_lngswr.method.bands import subbands
from nnunetv2_lngswr.method.wavelet import apply_gains
from nnunetv2_lngswr.utils.files import write_file

SHAPES = {"2d": (10, 32, 128, 112), "3d": (2, 32, 48, 48, 48)}
Reconstruct = Callable[[Tensor, Tensor], Tensor]  # x (N, C, *spatial), gains (C, B)


def with_pytorch_wavelets(device: str) -> Reconstruct:
    """2D only. Its transforms hold their filters, on `device`."""
    forward = pytorch_wavelets.DWTForward(J=1, wave="haar", mode="periodization").to(device)
    inverse = pytorch_wavelets.DWTInverse(wave="haar", mode="periodization").to(device)

    def reconstruct(x: Tensor, gains: Tensor) -> Tensor:
        low, (high,) = forward(x)
        # its high bands: high along the rows' axis, along the other, along both
        return inverse((low * gains[:, 0, None, None], [high * gains[:, (2, 1, 3), None, None]]))

    return reconstruct


def with_ptwt(x: Tensor, gains: Tensor) -> Tensor:
    """2D and 3D."""
    gains = gains.view(*gains.shape, *[1] * (x.ndim - 2))
    if x.ndim == 4:
        low, high = ptwt.wavedec2(x, "haar", level=1)
        names = {"horizontal": "HL", "vertical": "LH", "diagonal": "HH"}
        weighted = type(high)(
            **{
                key: getattr(high, key) * gains[:, subbands(2).index(name)]
                for key, name in names.items()
            }
        )
        return ptwt.waverec2((low * gains[:, 0], weighted), "haar")
    low, high = ptwt.wavedec3(x, "haar", level=1)
    weighted = {
        key: band * gains[:, subbands(3).index(key.replace("a", "L").replace("d", "H"))]
        for key, band in high.items()
    }
    return ptwt.waverec3((low * gains[:, 0], weighted), "haar")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15, help="turns after one that warms up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", type=Path, help="write the figures as JSON")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    command = " ".join(
        ["python", "-m", "benchmarks.reconstruction", *(sys.argv[1:] if argv is None else argv)]
    )
    result = {**conditions(command, args.device, args.threads), "shapes": {}}
    for name, shape in SHAPES.items():
        figures = measure(shape, args.repeats, args.device)
        result["shapes"][name] = {"shape": shape, "ways": figures}
        show(f"{name}, {shape}", figures)
    if args.o:
        write_file(args.o, json.dumps(result, indent=1) + "\n")


def measure(shape: tuple[int, ...], repeats: int, device: str) -> dict[str, dict[str, float]]:
    """Seconds of each way on a tensor of this shape, and ratios of them, medians over the turns."""
    axes = tuple(range(len(shape) - 2))
    x = torch.randn(shape, device=device, requires_grad=True)
    gains = torch.rand(shape[1], 2 ** len(axes), device=device, requires_grad=True)
    grad = torch.randn(shape, device=device)

    def ours(x: Tensor, gains: Tensor) -> Tensor:
        return apply_gains(x, gains, axes)

    def seconds_of(way: Reconstruct) -> float:
        return timed(lambda: torch.autograd.grad(way(x, gains), (x, gains), grad), device)

    ways: dict[str, Reconstruct] = {"ours": ours, "ptwt": with_ptwt}
    if len(axes) == 2:
        ways["pytorch_wavelets"] = with_pytorch_wavelets(device)
    for way in ways.values():
        torch.testing.assert_close(way(x, gains), ours(x, gains), atol=1e-4, rtol=1e-4)
    seconds: dict[str, list[float]] = {way: [] for way in (*ways, "ours, forward", "copy")}
    for turn in range(repeats + 1):
        spent = {name: seconds_of(way) for name, way in ways.items()}
        with torch.no_grad():
            spent["ours, forward"] = timed(lambda: ours(x, gains), device)
            spent["copy"] = timed(lambda: x.clone(), device)
        if turn:
            for name, one in spent.items():
                seconds[name].append(one)
    figures = {name: {"median_s": statistics.median(each)} for name, each in seconds.items()}
    for name in ways:
        figures[name]["over_ours"] = median_ratio(seconds[name], seconds["ours"])
    copied = median_ratio(seconds["ours, forward"], seconds["copy"])
    figures["ours, forward"]["over_copy"] = copied
    return figures


def median_ratio(seconds: list[float], reference: list[float]) -> float:
    """Turn by turn, so that both saw the same machine."""
    return statistics.median(s / r for s, r in zip(seconds, reference))


def show(title: str, figures: dict[str, dict[str, float]]) -> None:
    times = [f"{name} {f['median_s'] * 1e3:.1f} ms" for name, f in figures.items()]
    print(f"{title}: {', '.join(times)}")
    others = [
        f"{name} {f['over_ours']:.2f}"
        for name, f in figures.items()
        if "over_ours" in f and name != "ours"
    ]
    over_copy = figures["ours, forward"]["over_copy"]
    print(f"  over ours: {', '.join(others)}; our forward over a copy: {over_copy:.1f}")


if __name__ == "__main__":
    main()
