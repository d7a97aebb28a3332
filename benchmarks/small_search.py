"""Which settings to look at more closely: small networks, many seeds, the held-out fold left alone.

    python -m benchmarks.small_search FOLDER WORK --arms ARMS.json -o OUT.json

FOLDER is that of a `lngswr benchmark robustness` in 2d, whose plans and preprocessed data are used;
the raw data are found by nnUNet_raw. ARMS.json holds {NAME: {"arm": a trainer's short name, **its
"lngswr" entry}, ...}; with "trial": TRIAL it is trained by `noise_trials`. Fold 0 is left alone
(`held_out`), networks have `--features` in their first stage. What is in WORK already is not done
again, so several calls with other --seeds can work side by side on it, and a last one reads all.

OUT.json has Dice in percent by arm and seed, and of every arm's mean difference from the first arm,
paired by seed, mean and standard error.
"""

import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.held_out import ITERATIONS, HeldOutSearch, search_parser
from benchmarks.saving import command_line, write_json
from nnunetv2_lngswr.experiments.robustness.arms import ARMS
from nnunetv2_lngswr.utils.files import read_json

TRIALS = Path(__file__).with_name("noise_trials.py")
Dice = dict[str, dict[str, float]]
"""By seed and reading."""


def train_and_evaluate(
    search: HeldOutSearch, name: str, arm: Mapping[str, Any], seed: int, epochs: int
) -> dict[str, float]:
    """One arm's Dice by reading."""
    entry = {key: value for key, value in arm.items() if key not in ("arm", "trial")}
    trainer, plans = ARMS[arm["arm"]], f"s{seed}_{name}"
    entry |= {"num_epochs": epochs, "seed": seed}
    what = [arm.get("trial", "none"), search.dataset, trainer, plans]
    search.train_by([sys.executable, str(TRIALS), *what], trainer, plans, entry)
    return search.evaluate(trainer, plans)


def differences(dice: Mapping[str, Dice]) -> dict[str, dict[str, dict[str, float]]]:
    """Of every arm from the first one, by reading: mean over the seeds and its standard error."""
    first, *others = dice
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in others:
        found[name] = {}
        for reading in next(iter(dice[first].values())):
            values = [dice[name][s][reading] - dice[first][s][reading] for s in dice[first]]
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
            found[name][reading] = {"mean": statistics.mean(values), "standard_error": error}
    return found


def main(argv: list[str] | None = None) -> None:
    """Train, evaluate, and write each seed's Dice."""
    parser = search_parser(__doc__, "arms")
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args(argv)
    search = HeldOutSearch.begin(args, args.features)
    arms = read_json(args.arms)
    dice: dict[str, Dice] = {name: {} for name in arms}
    for seed in args.seeds:
        for name, arm in arms.items():
            found = train_and_evaluate(search, name, arm, seed, args.epochs)
            dice[name][f"seed {seed}"] = found
            print(name, seed, {reading: round(value, 1) for reading, value in found.items()})
    written = {
        **search.record(command_line("small_search", argv)),
        "features": args.features,
        "budget": {"num_epochs": args.epochs, **ITERATIONS},
        "arms": arms,
        "dice": dice,
        "minus_first": differences(dice),
    }
    write_json(args.output, written)


if __name__ == "__main__":
    main()
