"""Where in the spectrum an adversarial perturbation lives, stage by stage, before and after the reconstruction; vanilla beside it.

    python benchmarks/spectral_reading.py -m MODEL_FOLDER --reference VANILLA_FOLDER -f FOLD [--max-cases 8] [-o OUT.json] [--picture OUT.png]

PGD (Linf, CE) is made on each model through the sliding window that it deploys. Then, for the image and the output of every encoder stage,
f(x + delta) - f(x) is split into the bands of one wavelet level (`wavelet.band_energy`, along the axes that are pooled next), before and after
the reconstruction; so are the features f(x) themselves, and what random signs of the same size leave. Energies are means over coefficients, windows
and channels of a case. Quoted, as means over cases:

    relative   energy of the perturbation / energy of the features, both over all bands
    share      of low (LL), directional (LH, HL) and diagonal (HH; two or more high-pass axes) bands in the energy of the perturbation
    removed    1 - energy after / energy before, of the perturbation and of the features, in directional and diagonal bands together

Question: does the reconstruction do what it says, that is, remove high-band energy of the perturbation, so that the low band's share grows? Mind that
with fixed gains it is linear: within a channel and band it scales features and perturbation alike. So it lowers the relative perturbation only
where the perturbation holds more of its energy in the damped bands than the features do, which is what `relative` before and after shows.

A vanilla network gets an LNG-SWR with all gains 1, which is the identity to the last bit, so that both are read by the same code.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # model_pair lies beside this script

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from model_pair import MODEL, Pair, load, parser, write_json, write_picture
from torch import nn
from tqdm import tqdm

from evaluation.inputs import CaseFiles
from evaluation.model.folder import SegmentationModel
from evaluation.protocol import LINF, EvaluationRun, budget_text, parse_budget
from evaluation.report.figures import COLOURS
from evaluation.report.markdown import markdown_table
from nnunetv2_lngswr.attacks import ThreatModel, run_attack
from nnunetv2_lngswr.attacks.base import bottleneck, frozen
from nnunetv2_lngswr.experiments.overhead import conditions
from nnunetv2_lngswr.method.bands import HAAR, subbands
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import LNGSWR, attach, find_lngswr
from nnunetv2_lngswr.method.wavelet import band_energy, transformable_axes

KINDS = ("low", "directional", "diagonal")
PERTURBATIONS = ("pgd_linf", "noise")
FEATURES = "features"
SIDES = ("before", "after")


# --- measuring ----------------------------------------------------------------------------------------------------------------------


def instrumented(network: nn.Module) -> nn.Module:
    """A copy whose every branch can be read: as it is where it has LNG-SWR, else with one that changes nothing."""
    copy = deepcopy(network)
    return copy if find_lngswr(copy) is not None else attach(copy, LNGSWRConfig(gate_init=0.0))


def branch_axes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """{branch: axes that are transformed}, from the strides, by LNGSWR's own rule; also for branches that a configuration leaves empty."""
    encoder = network.encoder
    rule = LNGSWR(encoder.output_channels, encoder.strides, 1, LNGSWRConfig())
    return {
        name: branch.prior.axes if branch.prior is not None else ()
        for name, branch in rule.branches()
    }


@contextmanager
def watched(network: nn.Module) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Within it, each forward pass fills {branch: (feature map before, after)}, (N, C, *spatial)."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def watch(name: str) -> Callable:
        return lambda branch, args, output: seen.__setitem__(name, (args[0], output))

    hooks = [
        branch.register_forward_hook(watch(name))
        for name, branch in find_lngswr(network).branches()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def energies(
    network: nn.Module,
    clean: torch.Tensor,
    perturbed: Mapping[str, torch.Tensor],
    *,
    wavelet: str = HAAR,
) -> dict[str, Any]:
    """{branch: {"bands": names, FEATURES and each key of `perturbed`: {"before", "after": energy per band}}}.

    `network`: from `instrumented`. `clean` and each of `perturbed`: windows (n, C, *patch). FEATURES: of f(clean); the others: of
    f(perturbed) - f(clean). Mean over coefficients, channels and windows; one window is in memory at a time.
    """
    axes_of, sums = branch_axes(network), {}
    with frozen([network]), torch.no_grad(), watched(network) as seen:
        for i in range(len(clean)):
            maps = {}
            for key, windows in {FEATURES: clean, **perturbed}.items():
                bottleneck(network, windows[i : i + 1])
                maps[key] = dict(seen)
            for branch, sides in maps[FEATURES].items():
                axes = transformable_axes(sides[0].shape, axes_of[branch])
                entry = sums.setdefault(
                    branch,
                    {
                        "bands": list(subbands(len(axes))),
                        **{k: dict.fromkeys(SIDES, 0.0) for k in maps},
                    },
                )
                for key, found in maps.items():
                    for side, f, f_clean in zip(SIDES, found[branch], sides):
                        difference = f if key == FEATURES else f - f_clean
                        entry[key][side] = entry[key][side] + band_energy(
                            difference, axes, wavelet
                        ).mean(0).double() / len(clean)
    return {
        branch: {
            "bands": e["bands"],
            **{k: {s: e[k][s].tolist() for s in SIDES} for k in e if k != "bands"},
        }
        for branch, e in sums.items()
    }


def measure_case(
    model: SegmentationModel,
    files: CaseFiles,
    *,
    epsilon: Fraction,
    steps: int,
    seed: int,
    wavelet: str,
) -> dict[str, Any]:
    """`energies` of the windows of one case under PGD and under random signs."""
    case = model.preprocess(
        files.images, files.label, files.previous_stage, identifier=files.identifier
    )
    window, x, target = (
        model.sliding_window(),
        case.batch.to(model.device),
        case.target(model.label_space).to(model.device),
    )
    ball = ThreatModel(norm=LINF, epsilon=float(epsilon)).ball(case.bounds)
    windows = torch.arange(window.window_count(x))
    perturbed = {}
    for attack in PERTURBATIONS:
        generator = torch.Generator().manual_seed(
            EvaluationRun(kind="attack", name=attack, norm=LINF).seed(seed, case.identifier)
        )
        options = {} if attack == "noise" else {"steps": steps}
        found = run_attack(attack, window, x, target, ball, generator=generator, **options)
        perturbed[attack] = window.crop_windows(found.perturbed, windows)
    network = instrumented(model.networks[0])
    return {
        "case": case.identifier,
        "branches": energies(network, window.crop_windows(x, windows), perturbed, wavelet=wavelet),
    }


# --- reading ------------------------------------------------------------------------------------------------------------------------


def kinds(bands: Sequence[str]) -> list[str]:
    """Kind of each band, by its number of high-pass axes."""
    return [KINDS[min(b.count("H"), 2)] for b in bands]


def read(branch: Mapping[str, Any], perturbation: str) -> dict[str, Any]:
    """The figures of one branch of one case: {"relative": {side}, "share": {side: {kind}}, "band_relative": {side: {kind}} (a band's part of
    `relative`), "removed": {"perturbation", "features"}}; nan where there is no energy to take a share of."""
    of = kinds(branch["bands"])

    def by_kind(key: str, side: str) -> dict[str, float]:
        return {
            k: float(sum(e for e, kind in zip(branch[key][side], of) if kind == k)) for k in KINDS
        }

    def high(key: str, side: str) -> float:
        energy = by_kind(key, side)
        return energy["directional"] + energy["diagonal"]

    figures: dict[str, Any] = {"relative": {}, "share": {}, "band_relative": {}}
    for side in SIDES:
        delta, total = by_kind(perturbation, side), sum(branch[FEATURES][side])
        figures["relative"][side] = _ratio(sum(delta.values()), total)
        figures["share"][side] = {k: _ratio(v, sum(delta.values())) for k, v in delta.items()}
        figures["band_relative"][side] = {k: _ratio(v, total) for k, v in delta.items()}
    figures["removed"] = {
        what: 1 - _ratio(high(key, "after"), high(key, "before"))
        for what, key in (("perturbation", perturbation), ("features", FEATURES))
    }
    return figures


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else float("nan")


def summarise(cases: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """{branch: {perturbation: `read`'s figures, mean over the cases}}; None where no case defines one."""
    names = cases[0]["branches"]
    return {
        n: {p: _mean_of([read(c["branches"][n], p) for c in cases]) for p in PERTURBATIONS}
        for n in names
    }


def _mean_of(figures: Sequence[Any]) -> Any:
    if isinstance(figures[0], Mapping):
        return {k: _mean_of([f[k] for f in figures]) for k in figures[0]}
    defined = [f for f in figures if not np.isnan(f)]
    return float(np.mean(defined)) if defined else None


def answers(summary: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of the branches that remove something of PGD's perturbation ("acting"): where its low band's share grows, and where it shrinks relative
    to the features."""
    acting = {
        n: f["pgd_linf"]
        for n, f in summary.items()
        if (f["pgd_linf"]["removed"]["perturbation"] or 0) > 0
    }
    return {
        "acting": list(acting),
        "low_share_grows": [
            n for n, f in acting.items() if f["share"]["after"]["low"] > f["share"]["before"]["low"]
        ],
        "relative_falls": [
            n for n, f in acting.items() if f["relative"]["after"] < f["relative"]["before"]
        ],
    }


def growth(summary: Mapping[str, Mapping[str, Any]], perturbation: str) -> dict[str, float]:
    """From the image to the bottleneck the relative perturbation grows by the product of two factors: what it is multiplied with in the
    "reconstruction"s (after / before), and in the "layers" between them (before of the next / after of this)."""
    relative = [f[perturbation]["relative"] for f in summary.values()]
    return {
        "reconstruction": math.prod(r["after"] / r["before"] for r in relative),
        "layers": math.prod(b["before"] / a["after"] for a, b in pairwise(relative)),
    }


# --- showing ------------------------------------------------------------------------------------------------------------------------


def table(
    summaries: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    perturbation: str = "pgd_linf",
) -> str:
    """One row per stage and model: everything in percent, before -> after."""
    header = [
        "stage",
        "model",
        "relative",
        "low share",
        "directional",
        "diagonal",
        "high bands removed: perturbation",
        "features",
    ]
    body = []
    for branch in next(iter(summaries.values())):
        for name, summary in summaries.items():
            f = summary[branch][perturbation]
            shares = [_arrow(*(f["share"][s][k] for s in SIDES)) for k in KINDS]
            removed = [_percent(f["removed"][k]) for k in ("perturbation", "features")]
            body.append(
                [
                    branch,
                    titles[name],
                    _arrow(*(f["relative"][s] for s in SIDES)),
                    *shares,
                    *removed,
                ]
            )
    return markdown_table(header, body)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value + 0.0:.3g}"


def _arrow(before: float | None, after: float | None) -> str:
    return _percent(before) if before == after else f"{_percent(before)} -> {_percent(after)}"


def draw(path: Path, summaries: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> None:
    """Bars per stage and kind of band: energy of PGD's perturbation relative to that of all features, before (pale) and after."""
    figure = Figure(figsize=(10, 3.1 * len(summaries)), layout="constrained")
    axes = figure.subplots(len(summaries), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    width = 0.13
    for axis, (name, summary) in zip(axes, summaries.items()):
        for k, kind in enumerate(KINDS):
            for s, side in enumerate(SIDES):
                at = [i + (2 * k + s - 2.5) * width for i in range(len(summary))]
                heights = [
                    100 * (f["pgd_linf"]["band_relative"][side][kind] or np.nan)
                    for f in summary.values()
                ]
                axis.bar(at, heights, width * 0.95, color=COLOURS[k], alpha=1.0 if s else 0.4)
        axis.set_yscale("log")
        axis.set_ylabel("% of the features' energy")
        axis.set_title(titles[name], fontsize=10, loc="left")
        axis.set_xticks(range(len(summary)), list(summary))
        axis.grid(axis="y", color="#E5E5E5")
        axis.set_axisbelow(True)
    legend = [Patch(color=c, label=k) for c, k in zip(COLOURS, KINDS)]
    legend += [Patch(color="grey", alpha=0.4, label="before"), Patch(color="grey", label="after")]
    figure.legend(handles=legend, loc="outside upper right", ncols=5, fontsize=8, frameon=False)
    figure.suptitle("Energy of PGD's perturbation per band", x=0.01, ha="left", fontsize=10)
    write_picture(path, figure)


# --- the command --------------------------------------------------------------------------------------------------------------------


def wavelet_of(pair: Pair) -> str:
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
    command = parser(__doc__.split("\n")[0])
    command.add_argument(
        "--epsilon", default="8/255", help="fraction of the range; default: %(default)s"
    )
    command.add_argument("--steps", type=int, default=10, help="of PGD; default: %(default)s")
    args = command.parse_args(argv)
    try:
        result, titles = _run(args, argv)
    except ValueError as error:
        command.error(str(error))
    for perturbation, what in (("pgd_linf", f"PGD-{args.steps}"), ("noise", "random signs")):
        print(
            f"{what} at {args.epsilon}, energies in %\n\n{table(result['figures'], titles, perturbation)}\n"
        )
    print(
        "PGD: branches that reconstruct, those where the low band's share grows, those where the perturbation shrinks relative to the features:"
    )
    for name, answer in result["answers"].items():
        print(
            f"  {titles[name]}: {', '.join(answer['acting']) or 'none'}; {len(answer['low_share_grows'])}; {len(answer['relative_falls'])}"
        )
    print(
        "Relative perturbation from the image to the bottleneck, times: in the reconstructions, in the layers between them"
    )
    for name, factors in result["growth"].items():
        shown = "; ".join(
            f"{p} {f['reconstruction']:.3f}, {f['layers']:.2f}" for p, f in factors.items()
        )
        print(f"  {titles[name]}: {shown}")
    if args.o:
        write_json(args.o, result)
    if args.picture:
        draw(args.picture, result["figures"], titles)


def _run(args: argparse.Namespace, argv: list[str] | None) -> tuple[dict[str, Any], dict[str, str]]:
    command = " ".join(
        ["python", "benchmarks/spectral_reading.py", *(sys.argv[1:] if argv is None else argv)]
    )
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
        **conditions(command, args.device, args.threads),
        "protocol": {
            **{
                "norm": LINF,
                "epsilon": budget_text(epsilon),
                "unit": "range",
                "steps": args.steps,
                "loss": "ce",
            },
            **{"seed": args.seed, "mirroring": False, "wavelet": wavelet_of(pair)},
        },
        "models": {
            name: {k: v for k, v in model.describe().items() if k != "folder"}
            for name, model in pair.models.items()
        },
        "figures": summaries,
        "answers": {name: answers(s) for name, s in summaries.items()},
        "growth": {name: {p: growth(s, p) for p in PERTURBATIONS} for name, s in summaries.items()},
        "cases": cases,
    }
    return result, pair.titles


if __name__ == "__main__":
    main()
