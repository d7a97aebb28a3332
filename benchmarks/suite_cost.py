"""What a suite of attacks costs: `python -m evaluation.robust` beside the straightforward loop
over windows, with the same results, or beside an earlier tree of this repository.

    python -m benchmarks.suite_cost -m MODEL_FOLDER -f 0 [--max-cases 20] [--steps 10] \\
        [--turns 3] [--tree FOLDER] [--default [--ours NAME ...]] [-o FILE]

The suite is noise and fgsm, pgd_linf at three Linf budgets and pgd_l2 at three L2 budgets; with
--default it is what each side attacks with where no attack is named, or ours with --ours, in
--steps. Without corruptions, mirroring off. Both sides are whole commands, from start to report, in
turns: `ours` with its defaults, and with --tree the same command of that tree (`git worktree add
FOLDER COMMIT`). Without it, `plain` is the same command in one process with all threads, where the
gradient is that of the loop one would write first: each window through the network in one graph
with the parameters in it, summed by their weights, then backward. The JSON holds the seconds of
each turn, the median of other over ours, by how much the Dice of any case and run differs, and the
mean of the worst Dice of each budget.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)
from torch.nn import functional as F

from benchmarks.saving import command_line, first_paragraph
from evaluation.model.folder import SegmentationModel
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks.losses import per_case
from nnunetv2_lngswr.experiments.overhead import conditions
from nnunetv2_lngswr.utils.files import write_file

SUITE = [
    "--attacks",
    "noise",
    "fgsm",
    "pgd_linf",
    "pgd_l2",
    "--epsilons",
    "2/255",
    "4/255",
    "8/255",
    "--epsilons-l2",
    "0.5/255",
    "1/255",
    "2/255",
]
# as the first version called corruptions, and every one since understands
ALONE = ["--shifts", "none", "--disable_tta", "--disable_progress_bar"]


class PlainWindows(SlidingWindow):
    """The loop over windows as one would write it first, unmirrored.

    One graph over all of them, parameters included.
    """

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return self._sum(x)

    def value_and_gradient(self, x: torch.Tensor, loss):
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            z = self._sum(leaf)
            value = per_case(loss(z))
            value.sum().backward()
            for network in self.networks:
                network.zero_grad()
        return value.detach(), leaf.grad, z.detach()

    def _sum(self, x: torch.Tensor) -> torch.Tensor:
        patch = self.patch_size
        low = [max(p - n, 0) // 2 for p, n in zip(patch, x.shape[-len(patch) :])]
        high = [max(p - n, 0) - lo for p, n, lo in zip(patch, x.shape[-len(patch) :], low)]
        padded = F.pad(x, [v for lo, hi in zip(low[::-1], high[::-1]) for v in (lo, hi)])
        steps = compute_steps_for_sliding_window(
            tuple(padded.shape[-len(patch) :]), patch, self.tile_step_size
        )
        weight = compute_gaussian.__wrapped__(
            patch, sigma_scale=1.0 / 8, value_scaling_factor=10, device=torch.device("cpu")
        ).to(x)
        total, weights = None, torch.zeros(padded.shape[-len(patch) :])
        for leading in itertools.product(
            *[range(n) for n in padded.shape[2 : padded.ndim - len(patch)]]
        ):
            for start in itertools.product(*steps):
                window = tuple(slice(s, s + p) for s, p in zip(start, patch))
                at = (slice(None), slice(None), *leading, *window)
                out = sum(network(padded[at]) for network in self.networks) / len(self.networks)
                if total is None:
                    total = out.new_zeros(len(x), out.shape[1], *padded.shape[2:])
                total[at] = total[at] + out * weight
                if not any(leading):
                    weights[window] += weight
        crop = tuple(slice(lo, n - hi) for lo, hi, n in zip(low, high, padded.shape[-len(patch) :]))
        return (total / weights)[(..., *crop)]


def plain(argv: list[str]) -> int:
    """evaluation.robust by the plain loop."""
    from evaluation.robust import main as evaluate

    ours = SegmentationModel.sliding_window

    def sliding_window(self, **options):
        window = ours(self, **options)
        # as a loaded network comes: in eval mode, its parameters asking for gradients
        for network in window.networks:
            network.eval()
            for parameter in network.parameters():
                parameter.requires_grad_(True)
        window.__class__ = PlainWindows
        return window

    SegmentationModel.sliding_window = sliding_window
    return evaluate([*argv, "--workers", "1"])


def main(argv: list[str] | None = None) -> None:
    given = _parser().parse_args(argv)
    sides = _sides(given)
    seconds, dice = _take_turns(sides, _options(given), given.turns)
    ours, other = sides
    both = dice[ours].keys() & dice[other].keys()
    assert given.tree or both == dice[ours].keys() == dice[other].keys()
    differences = [abs(dice[ours][k] - dice[other][k]) for k in both]
    result = {
        **conditions(command_line("suite_cost", argv), given.device, torch.get_num_threads()),
        "tree": None if given.tree is None else _commit(given.tree),
        "cases": given.max_cases,
        "runs": {name: len(of) for name, of in dice.items()},
        "seconds": seconds,
        "ratio": statistics.median(p / o for p, o in zip(seconds[other], seconds[ours])),
        "largest_difference_of_dice": max(differences),
        "mean_dice": {name: statistics.mean(values.values()) for name, values in dice.items()},
        "worst_dice": {name: _worst(values) for name, values in dice.items()},
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if given.o:
        write_file(given.o, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__))
    parser.add_argument("-m", required=True, metavar="MODEL_FOLDER")
    parser.add_argument("-f", default="0", metavar="FOLD")
    parser.add_argument("--max-cases", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tree", type=Path, metavar="FOLDER", help="instead of the plain loop")
    parser.add_argument("--default", action="store_true", help="each side's own attacks")
    parser.add_argument("--ours", nargs="+", default=[], help="instead of our own default")
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("-o", metavar="FILE")
    return parser


def _options(given: argparse.Namespace) -> list[str]:
    """Of both sides' commands."""
    options = ["-m", given.m, "-f", given.f, "-device", given.device]
    options += ["--max-cases", str(given.max_cases), *ALONE]
    return options if given.default else [*options, "--steps", str(given.steps), *SUITE]


def _sides(given: argparse.Namespace) -> dict[str, tuple[list[str], Path]]:
    """{side: (its command, the tree it runs in)}, ours first."""
    here, evaluate = Path(__file__).parents[1], [sys.executable, "-m", "evaluation.robust"]
    attacks = ["--attacks", *given.ours, "--steps", str(given.steps)] if given.ours else []
    ours = ([*evaluate, *attacks], here)
    if given.tree is not None:
        return {"ours": ours, "tree": (evaluate, given.tree.resolve())}
    return {"ours": ours, "plain": ([sys.executable, __file__, "--plain"], here)}


def _commit(tree: Path) -> str:
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _take_turns(
    sides: dict[str, tuple[list[str], Path]], options: list[str], turns: int
) -> tuple[dict[str, list[float]], dict[str, dict[tuple, float]]]:
    """({side: seconds of each turn}, {side: Dice of its last turn})."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    dice = {}
    for _, (name, (command, tree)) in itertools.product(range(turns), sides.items()):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            subprocess.run(
                [*command, *options, "-o", folder],
                check=True,
                stdout=subprocess.DEVNULL,
                cwd=folder,  # no other tree's packages
                env={**os.environ, "PYTHONPATH": str(tree)},
            )
            seconds[name].append(time.perf_counter() - started)
            dice[name] = _dice(Path(folder))
        print(f"{name}: {seconds[name][-1]:.0f} s", file=sys.stderr)
    return seconds, dice


def _worst(dice: dict[tuple, float]) -> dict[str, float]:
    """{norm and budget: mean over cases of the lowest Dice}."""
    lowest: dict[tuple[str, str], dict[str, float]] = {}
    for (case, attack, norm, epsilon), value in dice.items():
        if norm and attack != "noise":
            of = lowest.setdefault((norm, epsilon), {})
            of[case] = min(value, of.get(case, 1.0))
    return {" ".join(budget): statistics.mean(of.values()) for budget, of in lowest.items()}


def _dice(folder: Path) -> dict[tuple, float]:
    """Foreground Dice of every case and run."""
    from evaluation.report.cases_table import read_cases
    from evaluation.rows import MEAN_LABEL

    rows = read_cases(folder / "cases.csv")
    return {
        (r["case"], r["attack"], r["norm"], r["epsilon_text"]): r["dice"]
        for r in rows
        if r["label"] == MEAN_LABEL and r["kind"] != "derived"
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        sys.exit(plain(sys.argv[2:]))
    main()
