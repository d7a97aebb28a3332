"""The measuring of spectral_reading.py: energies per band at every branch of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from benchmarks.model_pair import problem
from evaluation.inputs import CaseFiles
from evaluation.model.folder import SegmentationModel
from evaluation.protocol import EvaluationRun
from nnunetv2_lngswr.attacks import Norm, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.models import bottleneck, frozen
from nnunetv2_lngswr.method.bands import HAAR, subbands
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import LNGSWR, attach, find_lngswr
from nnunetv2_lngswr.method.wavelet import band_energy, transformable_axes

PERTURBATIONS = ("pgd_linf", "noise")
FEATURES = "features"
SIDES = ("before", "after")


def instrumented(network: nn.Module) -> nn.Module:
    """A copy whose every branch can be read.

    As it is where it has LNG-SWR, else with one that changes nothing.
    """
    copy = deepcopy(network)
    return copy if find_lngswr(copy) is not None else attach(copy, LNGSWRConfig(gate_init=0.0))


def branch_axes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """{branch: axes that are transformed}, from the strides, by LNGSWR's own rule.

    Also for branches that a configuration leaves empty.
    """
    encoder = network.encoder
    rule = LNGSWR(encoder.output_channels, encoder.strides, 1, LNGSWRConfig())
    return {
        name: branch.prior.axes if branch.prior is not None else ()
        for name, branch in rule.branches()
    }


@contextmanager
def watched(network: nn.Module) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Within it, a forward pass fills {branch: (feature map before, after)}, (N, C, *spatial)."""
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
    """Energy per band at every branch, of the features and of what perturbations do to them.

    The mean over coefficients, channels and windows; one window is in memory at a time.

    Parameters
    ----------
    network
        From `instrumented`.
    clean, perturbed
        Windows (n, C, *patch), and {name: windows}.
    wavelet
        A name of PyWavelets.

    Returns
    -------
    dict
        {branch: {"bands": names, FEATURES and each key of `perturbed`: {"before", "after": energy
        per band}}}. FEATURES: of f(clean); the others: of f(perturbed) - f(clean).
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
                if branch not in sums:
                    zeros = {key: dict.fromkeys(SIDES, 0.0) for key in maps}
                    sums[branch] = {"bands": list(subbands(len(axes))), **zeros}
                for key, found in maps.items():
                    for side, f, f_clean in zip(SIDES, found[branch], sides):
                        difference = f if key == FEATURES else f - f_clean
                        energy = band_energy(difference, axes, wavelet).mean(0).double()
                        sums[branch][key][side] = sums[branch][key][side] + energy / len(clean)
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
    window, x, target = problem(model, case)
    ball = ThreatModel(norm=Norm.LINF, epsilon=float(epsilon)).ball(case.bounds)
    windows = torch.arange(window.window_count(x))
    perturbed = {}
    for attack in PERTURBATIONS:
        generator = torch.Generator().manual_seed(
            EvaluationRun(kind="attack", name=attack, norm=Norm.LINF.value).seed(
                seed, case.identifier
            )
        )
        options = {} if attack == "noise" else {"steps": steps}
        found = run_attack(attack, window, x, target, ball, generator=generator, **options)
        perturbed[attack] = window.crop_windows(found.perturbed, windows)
    network = instrumented(model.networks[0])
    return {
        "case": case.identifier,
        "branches": energies(network, window.crop_windows(x, windows), perturbed, wavelet=wavelet),
    }
