"""Which last phase of adversarial training: one plain phase per seed, several last phases from it.

    python -m benchmarks.late_phase FOLDER WORK --phases PHASES.json -o OUT.json

FOLDER is that of a `lngswr benchmark robustness` in 2d, whose plans and preprocessed data are used;
the raw data are found by nnUNet_raw. PHASES.json holds {NAME: {"num_epochs": 2, "adversarial":
{...}}, ...}. Fold 0 is left alone (`held_out`). So last phases are compared at a fifth of what
whole trainings cost. What is in WORK already is not done again.
"""

from benchmarks.held_out import HeldOutSearch, search_parser
from benchmarks.saving import command_line, write_json
from nnunetv2_lngswr.utils.files import read_json

PLAIN, ATTACKED = "nnUNetTrainerVanilla", "nnUNetTrainerAT"


def main(argv: list[str] | None = None) -> None:
    """Train, evaluate, and write each seed's Dice."""
    parser = search_parser(__doc__, "phases")
    parser.add_argument("--plain-epochs", type=int, default=8)
    args = parser.parse_args(argv)
    search = HeldOutSearch.begin(args)
    phases = read_json(args.phases)
    dice: dict[str, dict[str, dict[str, float]]] = {name: {} for name in phases}
    for seed in args.seeds:
        plain = {"num_epochs": args.plain_epochs, "seed": seed}
        start = search.train(PLAIN, f"s{seed}_P{args.plain_epochs}", plain)
        for name, entry in phases.items():
            plans = f"s{seed}_{name}"
            search.train(ATTACKED, plans, {**entry, "seed": seed, "warm_start": str(start)})
            dice[name][f"seed {seed}"] = search.evaluate(ATTACKED, plans)
            print(name, seed, dice[name][f"seed {seed}"])
    written = {
        **search.record(command_line("late_phase", argv)),
        "phases": phases,
        "dice": dice,
    }
    write_json(args.output, written)


if __name__ == "__main__":
    main()
