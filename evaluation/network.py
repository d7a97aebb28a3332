"""The same evaluation for any network: attacks, corruptions, report and results folder.

`evaluate_network(...)` takes what is in memory: a network, how it is deployed, and cases as arrays.
Everything after that is what `evaluate` does with nnU-Net's folder; docs/any-network.md shows it
with MONAI.

A module is called in eval mode with frozen weights; mode, `requires_grad` and random state come
back as they were. What a callable hides is called as it is. Finished cases in OUT are not repeated
where network, inference, cases and options are the same: weights by their hash, a callable by what
it says of the first case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation import protocol
from evaluation.array_cases import ArrayCase, as_cases
from evaluation.corruption_table import is_mr
from evaluation.devices import find_device
from evaluation.file_hashes import ModelFiles
from evaluation.groups import parse_groups
from evaluation.inputs import choose
from evaluation.options import Options, with_new_names
from evaluation.robust import Evaluation, run_what_is_left
from evaluation.session import (
    NOT_IN_SETTINGS,
    Session,
    of_planned,
    settings_of_any,
)
from evaluation.share import find_share
from nnunetv2_lngswr.attacks.registry import get_attack
from nnunetv2_lngswr.utils.errors import UserError

if TYPE_CHECKING:
    import torch
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from torch import nn

    from evaluation.model.given import Function, GivenModel, Inference
    from nnunetv2_lngswr.attacks.models import DifferentiableModel

OF_FOLDERS = (
    "folds",
    "checkpoint",
    "tile_step_size",
    "use_mirroring",
    "window_batch_size",
    "graph_memory",
    "autocast",
    "surrogate",
    "trust_checkpoint",
    "workers",
)
"""Options of `evaluate` that mean nothing here."""
_NO_HU = "needs a model folder, whose files hold HU"


def evaluate_network(
    network: nn.Module | Function | DifferentiableModel,
    cases: Sequence[ArrayCase | Sequence[Any]],
    output_folder: str | Path,
    *,
    labels: Mapping[str, Any],
    inference: Inference | None = None,
    regions_class_order: Sequence[int] | None = None,
    channel_names: Sequence[str] = (),
    dataset: str = "",
    name: str | None = None,
    num_parts: int | None = None,
    part_id: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Evaluate a network that is in memory.

    Parameters
    ----------
    network
        A module, or any callable: (1, C, *spatial) -> logits (1, K, *spatial). Or a
        DifferentiableModel, such as evaluation.model.sliding_window.SlidingWindow.
    cases
        (name, image (C, *spatial), label (*spatial), spacing in mm) or ArrayCases, as the network
        takes them: normalised, in two or three dimensions.
    output_folder, num_parts, part_id, overwrite, progress
        As `evaluate`.
    labels, regions_class_order
        As in nnU-Net's dataset.json: {name: integer}, channel k of the logits being label k, and
        one channel alone the sigmoid of label 1; regions are lists of integers, one channel each.
    inference
        (x, network) -> logits, such as MONAI's SlidingWindowInferer; None: network(x).
    channel_names
        Such as ("MR",), for the corruptions that only some modalities have.
    dataset, name
        For the report; the name by default that of the network's class.
    **options
        The fields of `options.Options` that are not of folders: attacks, epsilons, steps, ...

    Raises
    ------
    UserError
        Bad input, before anything is written: cases that are none, a network that returns no logits
        of them, or whose logits are detached from the image.
    """
    given = _options(options)
    cases = as_cases(cases)
    deployed = _Deployed(network, inference, labels, regions_class_order, name, dataset)
    model = _model(deployed, cases, given.device)
    session = _session(model, cases, given, channel_names, find_share(num_parts, part_id))
    from evaluation.results_folder import ResultsFolder

    out = ResultsFolder(output_folder, session.settings_sha256)
    summary = run_what_is_left(session, out, 1, overwrite, progress)
    return Evaluation(folder=out.path, finished=bool(summary), summary=summary)


class _Deployed(NamedTuple):
    """What `evaluate_network` was told of the network."""

    network: Any
    inference: Inference | None
    labels: Mapping[str, Any]
    regions_class_order: Sequence[int] | None
    name: str | None
    dataset: str


def _options(options: Mapping[str, Any]) -> Options:
    wrong = [name for name in OF_FOLDERS if name in options]
    if wrong:
        raise UserError(
            f"{', '.join(wrong)} cannot be set for a network that is given: it is called as it is, "
            "in this process"
        )
    found = Options(**with_new_names(options))
    protocol.check_names(found)
    return found


def _model(deployed: _Deployed, cases: Sequence[ArrayCase], device: str | None) -> GivenModel:
    from evaluation.model.given import GivenModel, label_manager

    manager = label_manager(deployed.labels, deployed.regions_class_order)
    _check_labels(cases, manager)
    network, name = deployed.network, deployed.name
    return GivenModel(
        network,
        deployed.inference,
        manager,
        name=_name_of(network) if name is None else name,
        dataset=deployed.dataset,
        device=_device(network, device),
    )


def _session(
    model: GivenModel,
    cases: Sequence[ArrayCase],
    options: Options,
    channel_names: Sequence[str],
    share: tuple[int, int],
) -> Session:
    two_dimensional = cases[0].image.ndim == 3
    ct = bool(channel_names) and all(str(c).upper() == "CT" for c in channel_names)
    planned = protocol.plan_runs(
        options,
        ct=ct,
        two_dimensional=two_dimensional,
        mr=is_mr(channel_names),
        regions=model.label_space.regions,
        has_encoder=model.has_encoder,
        without={"hu_offset": _NO_HU, "hu_scale": _NO_HU},
    )
    attacks = [r.function for r in planned.runs if r.kind == "attack"]
    gradient = any(get_attack(name).uses_gradients for name in attacks)
    model.probe(cases[0].load(model), gradient=gradient)
    chosen = choose(cases, options.max_cases, seed=options.seed)
    groups = None
    if options.groups is not None:
        groups = parse_groups(options.groups, [c.identifier for c in chosen])
    num_parts, part_id = share
    description = model.describe()
    left_out = set(NOT_IN_SETTINGS) - {"checkpoint_sha256"}
    settings = {
        **settings_of_any(model, options, chosen),
        "model": {k: v for k, v in description.items() if k not in left_out},
        "surrogate": None,
    }
    return Session(
        inputs=None,
        options=options,
        model=model,
        surrogate=None,
        two_dimensional=two_dimensional,
        cases=chosen,
        share=chosen[part_id::num_parts],
        planned=planned,
        settings=settings | of_planned(planned),
        model_files=ModelFiles([]),
        groups=groups,
    )


def _check_labels(cases: Sequence[ArrayCase], manager: LabelManager) -> None:
    known = {0, *map(int, manager.all_labels)}
    if manager.ignore_label is not None:
        known.add(manager.ignore_label)
    for case in cases:
        unknown = sorted(set(case.label.unique().tolist()) - known)
        if unknown:
            raise UserError(
                f"{case.place}: label holds {unknown}, which labels= does not name; it has "
                f"{sorted(known)}"
            )


def _device(network: Any, asked: str | None) -> torch.device:
    """Where cases go: to the network's weights, which stay where they are."""
    import torch

    from evaluation.model.given import device_of

    there = device_of(network)
    if asked is None:
        return there or torch.device("cpu")
    device = torch.device(find_device(asked))
    if there is not None and (device.type, device.index or 0) != (there.type, there.index or 0):
        raise UserError(
            f"device {device} was asked for, and the network is on {there}; move it there, or "
            "leave device out"
        )
    return device


def _name_of(network: Any) -> str:
    name = getattr(network, "__name__", type(network).__name__)
    return "network" if name == "<lambda>" else name
