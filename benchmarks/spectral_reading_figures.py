"""The figures of spectral_reading.py: shares and ratios of energies, their table and picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.saving import write_picture
from benchmarks.spectral_reading_energies import FEATURES, PERTURBATIONS, SIDES
from evaluation.report.figures import COLOURS
from nnunetv2_lngswr.utils.markdown import markdown_table

KINDS = ("low", "directional", "diagonal")


def kinds(bands: Sequence[str]) -> list[str]:
    """Kind of each band, by its number of high-pass axes."""
    return [KINDS[min(b.count("H"), 2)] for b in bands]


def read(branch: Mapping[str, Any], perturbation: str) -> dict[str, Any]:
    """The figures of one branch of one case; nan where there is no energy to take a share of.

    Returns
    -------
    dict
        "relative": {side}; "share": {side: {kind}}; "band_relative": {side: {kind}}, a band's part
        of `relative`; "removed": {"perturbation", "features"}.
    """
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
    """{branch: {perturbation: `read`'s figures, mean over the cases}}.

    None where no case defines one.
    """
    return {
        n: {p: _mean_of([read(c["branches"][n], p) for c in cases]) for p in PERTURBATIONS}
        for n in cases[0]["branches"]
    }


def _mean_of(figures: Sequence[Any]) -> Any:
    if isinstance(figures[0], Mapping):
        return {k: _mean_of([f[k] for f in figures]) for k in figures[0]}
    defined = [f for f in figures if not np.isnan(f)]
    return float(np.mean(defined)) if defined else None


def answers(summary: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Where the reconstruction does what it says.

    Of the branches that remove something of PGD's perturbation ("acting"): where its low band's
    share grows, and where it shrinks relative to the features.
    """
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
    """From the image to the bottleneck the relative perturbation grows by the product of these.

    What it is multiplied with in the "reconstruction"s (after / before), and in the "layers"
    between them (before of the next / after of this).
    """
    relative = [f[perturbation]["relative"] for f in summary.values()]
    return {
        "reconstruction": math.prod(r["after"] / r["before"] for r in relative),
        "layers": math.prod(b["before"] / a["after"] for a, b in pairwise(relative)),
    }


def table(
    summaries: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    perturbation: str = "pgd_linf",
) -> str:
    """As `cells`, in Markdown."""
    header, *body = cells(summaries, titles, perturbation)
    return markdown_table(header, body)


def cells(
    summaries: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    perturbation: str = "pgd_linf",
) -> list[list[str]]:
    """A header, and one row per stage and model: everything in percent, before -> after."""
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
    return [header, *body]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value + 0.0:.3g}"


def _arrow(before: float | None, after: float | None) -> str:
    return _percent(before) if before == after else f"{_percent(before)} -> {_percent(after)}"


def draw(path: Path, summaries: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> None:
    """Bars per stage and kind of band, before (pale) and after.

    Energy of PGD's perturbation relative to that of all features.
    """
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
