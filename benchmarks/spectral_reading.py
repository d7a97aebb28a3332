"""Where in the spectrum an adversarial perturbation lives, stage by stage, before and after
the reconstruction; vanilla beside it.

    python -m benchmarks.spectral_reading -m MODEL_FOLDER --reference VANILLA_FOLDER -f FOLD \\
        [--max-cases 8] [-o OUT.json] [--picture OUT.png]

PGD (Linf, CE) is made on each model through the sliding window that it deploys. Then, for the image
and the output of every encoder stage, f(x + delta) - f(x) is split into the bands of one wavelet
level (`wavelet.band_energy`, along the axes that are pooled next), before and after the
reconstruction; so are the features f(x) themselves, and what random signs of the same size leave.
Energies are means over coefficients, windows and channels of a case. Quoted, as means over cases:

relative
    energy of the perturbation / energy of the features, both over all bands
share
    of low (LL), directional (LH, HL) and diagonal (HH; two or more high-pass axes) bands in the
    energy of the perturbation
removed
    1 - energy after / energy before, of the perturbation and of the features, in directional and
    diagonal bands together

Question: does the reconstruction do what it says, that is, remove high-band energy of the
perturbation, so that the low band's share grows? Mind that with fixed gains it is linear: within a
channel and band it scales features and perturbation alike. So it lowers the relative perturbation
only where the perturbation holds more of its energy in the damped bands than the features do, which
is what `relative` before and after shows.

A vanilla network gets an LNG-SWR with all gains 1, which is the identity to the last bit, so that
both are read by the same code.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.model_pair import MODEL, Pair, load, parser
from benchmarks.saving import command_line, first_paragraph, write_json
from benchmarks.spectral_reading_energies import PERTURBATIONS, measure_case
from benchmarks.spectral_reading_figures import answers, draw, growth, summarise, table
from nnunetv2_lngswr.attacks import Norm
from nnunetv2_lngswr.experiments.overhead import conditions
from nnunetv2_lngswr.method.bands import HAAR
from nnunetv2_lngswr.method.network import find_lngswr
from nnunetv2_lngswr.utils.epsilon import budget_text, parse_budget


def wavelet_of(pair: Pair) -> str:
    """That of the model's reconstruction, or Haar."""
    lngswr = find_lngswr(pair.models[MODEL].networks[0])
    return HAAR if lngswr is None else lngswr.config.wavelet


def measure(
    pair: Pair, *, epsilon: Fraction, steps: int, seed: int, progress: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """{"model" | "reference": one `measure_case` per case}, both in the wavelet of the model."""
    wavelet = wavelet_of(pair)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in pair.models}
    for files in tqdm(pair.cases, unit="case", disable=not progress):
        for name, model in pair.models.items():
            found[name].append(
                measure_case(model, files, epsilon=epsilon, steps=steps, seed=seed, wavelet=wavelet)
            )
    return found


def main(argv: list[str] | None = None) -> None:
    command = parser(first_paragraph(__doc__))
    command.add_argument(
        "--epsilon", default="8/255", help="fraction of the range; default: %(default)s"
    )
    command.add_argument("--steps", type=int, default=10, help="of PGD; default: %(default)s")
    args = command.parse_args(argv)
    try:
        result, titles = _run(args, argv)
    except ValueError as error:
        command.error(str(error))
    _print(args, result, titles)
    if args.o:
        write_json(args.o, result)
    if args.picture:
        draw(args.picture, result["figures"], titles)


def _print(args: argparse.Namespace, result: dict[str, Any], titles: dict[str, str]) -> None:
    for perturbation, what in (("pgd_linf", f"PGD-{args.steps}"), ("noise", "random signs")):
        shown = table(result["figures"], titles, perturbation)
        print(f"{what} at {args.epsilon}, energies in %\n\n{shown}\n")
    print(
        "PGD: branches that reconstruct, those where the low band's share grows, "
        "those where the perturbation shrinks relative to the features:"
    )
    for name, answer in result["answers"].items():
        acting = ", ".join(answer["acting"]) or "none"
        grows, falls = len(answer["low_share_grows"]), len(answer["relative_falls"])
        print(f"  {titles[name]}: {acting}; {grows}; {falls}")
    print(
        "Relative perturbation from the image to the bottleneck, times: "
        "in the reconstructions, in the layers between them"
    )
    for name, factors in result["growth"].items():
        shown = "; ".join(
            f"{p} {f['reconstruction']:.3f}, {f['layers']:.2f}" for p, f in factors.items()
        )
        print(f"  {titles[name]}: {shown}")


def _run(args: argparse.Namespace, argv: list[str] | None) -> tuple[dict[str, Any], dict[str, str]]:
    """(what -o writes, titles of the models)."""
    torch.set_num_threads(args.threads)
    epsilon = parse_budget(args.epsilon)
    pair = load(args)
    cases = measure(
        pair,
        epsilon=epsilon,
        steps=args.steps,
        seed=args.seed,
        progress=not args.disable_progress_bar,
    )
    summaries = {name: summarise(found) for name, found in cases.items()}
    result = {
        **conditions(command_line("spectral_reading", argv), args.device, args.threads),
        "protocol": {
            "norm": Norm.LINF.value,
            "epsilon": budget_text(epsilon),
            "unit": "range",
            "steps": args.steps,
            "loss": "ce",
            "seed": args.seed,
            "mirroring": False,
            "wavelet": wavelet_of(pair),
        },
        "models": pair.record(),
        "figures": summaries,
        "answers": {name: answers(s) for name, s in summaries.items()},
        "growth": {name: {p: growth(s, p) for p in PERTURBATIONS} for name, s in summaries.items()},
        "cases": cases,
    }
    return result, pair.titles


if __name__ == "__main__":
    main()
