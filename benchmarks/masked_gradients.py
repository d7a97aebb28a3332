"""Is a model's robustness real, or are its gradients masked? Seven checks on a model folder and,
as the control, on a reference.

    python -m benchmarks.masked_gradients -m MODEL_FOLDER --reference VANILLA_FOLDER -f FOLD \\
        [--max-cases 8] [--attack apgd_dice] [-o OUT.json] [--picture OUT.png]

Everything goes through the sliding window that the model deploys and the project's attacks, by
evaluation.run_case: Linf, epsilon as a fraction of the case's range; Dice of the
segmentation that nnU-Net would export, mean over the cases. Checklist: Carlini et al. 2019, "On
evaluating adversarial robustness", section 5; signs of obfuscated gradients: Athalye, Carlini &
Wagner 2018, section 3.1. Rules, on means over cases, with TOLERANCE for chance:

transfer
    Neither PGD nor the white-box attack, made on the other model, may lower Dice further than the
    white-box attack made on this one.
black box
    Neither the square attack (no gradients) nor random signs may lower Dice further than PGD at the
    same budget.
steps
    PGD with 1, 2, 5, ... steps: the longest must lie below clean and not above the shortest
    (iterating must help). Unsettled: Dice rises between neighbours, or still falls by more than
    LEVEL at the end, so that the figure is only an upper bound.
radius
    At the largest epsilon Dice must be at most ZERO: an unbounded attack succeeds. Unsettled: a
    larger ball gives a higher Dice, above ZERO.
surface
    Along the PGD direction the loss must rise, and further than along a random sign direction of
    the same size; and the gradient must predict what a small step does (central difference over
    epsilon / 32 along its sign, relative error at most GRADIENT_ERROR). Unsettled: the mean loss
    falls somewhere on the way.
adaptive
    Two evaluations, gradients included, must be bit-equal under different random states: else the
    model is random and an attack must average (EOT). The gradient with the reconstruction's gains
    detached must equal the full gradient: gains are constants of the model, so that there is
    nothing an adaptive attacker could use beyond what our attacks differentiate. Unsettled: it does
    not, and the attacks must differentiate through the gains (ours do).
designed
    No attack that is made for the method may lower Dice further than the white-box one from the
    better of two starts: the perturbation confined to the low band that the reconstruction keeps;
    the reconstructions' gradient replaced by the identity's (BPDA); the reconstructions left out
    while the perturbation is made (masked_gradients_designed.py).

Finished cases are kept beside OUT.json: the same command goes on where a killed one was.

A rule that is broken reads "masked", else "passes" or "unsettled". Passing is necessary, not
sufficient: the checks find gradients that mislead, not attacks that nobody has thought of.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.masked_gradients_checks import Protocol, measure_case, surface_cost
from benchmarks.masked_gradients_designed import designed_cost
from benchmarks.masked_gradients_showing import draw, tables
from benchmarks.masked_gradients_verdicts import judge, summarise
from benchmarks.model_pair import Pair, load, parser
from benchmarks.saving import command_line, first_paragraph, write_json
from nnunetv2_lngswr.experiments.overhead import conditions
from nnunetv2_lngswr.utils.epsilon import budget_text, parse_budget
from nnunetv2_lngswr.utils.files import read_json, write_file


def measure(
    pair: Pair, protocol: Protocol, *, progress: bool = True, kept: Path | None = None
) -> dict[str, list[dict[str, Any]]]:
    """All checks on all cases; each model is the other's surrogate.

    Parameters
    ----------
    pair, protocol
        What is read, and what is run.
    progress
        Whether to show a bar.
    kept
        A file that holds finished cases, from which a killed call goes on.

    Returns
    -------
    dict
        {"model" | "reference": one `measure_case` per case}.

    Raises
    ------
    ValueError
        `kept` is of other settings.
    """
    settings = _settings(pair, protocol)
    found = _finished(kept, settings) or {name: [] for name in pair.models}
    cost = sum(r.cost for r in protocol.runs()) + surface_cost(protocol) + designed_cost(protocol)
    total = cost * len(pair.cases) * len(pair.models)
    with tqdm(
        total=round(total),
        initial=round(cost * sum(map(len, found.values()))),
        unit="prediction",
        disable=not progress,
    ) as bar:
        for i, files in enumerate(pair.cases):
            for name, model in pair.models.items():
                if len(found[name]) > i:
                    continue
                bar.set_postfix_str(f"{files.identifier}, {name}")
                found[name].append(
                    measure_case(model, pair.other(name), files, protocol, advance=bar.update)
                )
                if kept is not None:
                    write_file(kept, json.dumps({"settings": settings, "found": found}))
    return found


def _settings(pair: Pair, protocol: Protocol) -> dict[str, Any]:
    """What a file of finished cases must have been made with, as JSON holds it."""
    settings = {
        "protocol": protocol.record(),
        "checkpoints": {
            name: model.describe()["checkpoint_sha256"] for name, model in pair.models.items()
        },
        "cases": [files.identifier for files in pair.cases],
    }
    return json.loads(json.dumps(settings))


def _finished(
    kept: Path | None, settings: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]] | None:
    if kept is None or not kept.is_file():
        return None
    content = read_json(kept, needs=("settings", "found"))
    if content["settings"] != settings:
        raise ValueError(f"{kept} holds cases of other settings; remove it, or give another -o")
    return content["found"]


def main(argv: list[str] | None = None) -> None:
    default = Protocol()
    command = parser(first_paragraph(__doc__))
    add = command.add_argument
    add(
        "--epsilon",
        default=budget_text(default.epsilon),
        help="budget of all checks but the radius; default: %(default)s of the range",
    )
    add(
        "--attack",
        default=default.attack,
        help="the white-box attack of all checks; default: %(default)s",
    )
    add(
        "--steps",
        type=int,
        default=default.attack_steps,
        help="of the attack where they are not swept; default: %(default)s",
    )
    add("--step-sweep", type=int, nargs="+", default=default.step_sweep, metavar="N")
    add(
        "--radii",
        nargs="+",
        default=[budget_text(r) for r in default.radii],
        metavar="E",
        help="beside --epsilon; default: %(default)s",
    )
    add(
        "--queries",
        type=int,
        default=default.queries,
        help="of the square attack; default: %(default)s",
    )
    add(
        "--grid",
        type=int,
        default=default.grid,
        help="points per axis of the loss surface; default: %(default)s",
    )
    args = command.parse_args(argv)
    try:
        result, figures, titles, protocol = _run(args, argv)
    except ValueError as error:
        command.error(str(error))
    print(tables(figures, titles, protocol))
    if args.o:
        write_json(args.o, result)
        _kept(args.o).unlink(missing_ok=True)
    if args.picture:
        draw(args.picture, figures, titles, protocol)


def _kept(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


def _run(
    args: argparse.Namespace, argv: list[str] | None
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, str], Protocol]:
    """(what -o writes, figures per model, titles, protocol)."""
    torch.set_num_threads(args.threads)
    protocol = Protocol(
        epsilon=parse_budget(args.epsilon),
        attack=args.attack,
        attack_steps=args.steps,
        step_sweep=tuple(args.step_sweep),
        radii=tuple(parse_budget(r) for r in args.radii),
        queries=args.queries,
        grid=args.grid,
        seed=args.seed,
    )
    pair = load(args)
    kept = _kept(args.o) if args.o else None
    cases = measure(pair, protocol, progress=not args.disable_progress_bar, kept=kept)
    figures = {name: summarise(found, protocol) for name, found in cases.items()}
    result = {
        **conditions(command_line("masked_gradients", argv), args.device, args.threads),
        "protocol": protocol.record(),
        "models": pair.record(),
        "figures": figures,
        "verdicts": {name: judge(f) for name, f in figures.items()},
        "cases": cases,
    }
    return result, figures, pair.titles, protocol


if __name__ == "__main__":
    main()
