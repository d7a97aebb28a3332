"""The networks in the checkpoints of a model folder, built as nnU-Net's predictor builds them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from evaluation.model.folds import Fold
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint, sha256
from nnunetv2_lngswr.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LoadedFolds:
    """What the checkpoints of some folds hold."""

    networks: list[nn.Module]
    """One per fold, in eval mode."""
    sha256: dict[Fold, str]
    """{fold: hash of its checkpoint}."""
    trainer_name: str
    """nnU-Net's class, as the first checkpoint names it."""
    configuration: str
    """Of the plans, likewise."""
    mirror_axes: tuple[int, ...] | None
    """Those that the training allows at inference, likewise; None for none."""


def load_folds(
    folder: Path,
    folds: Sequence[Fold],
    *,
    checkpoint: str,
    plans: PlansManager,
    dataset_json: dict[str, Any],
    device: torch.device,
    trust_checkpoint: bool,
) -> LoadedFolds:
    """Load the networks of `folds`, with weights, onto `device`.

    Raises
    ------
    UserError
        A trainer that nnU-Net does not find, a checkpoint that weights_only refuses (unless
        `trust_checkpoint`), weights that do not fit.
    """
    networks, hashes, first = [], {}, {}
    for fold in folds:
        path = folder / f"fold_{fold}" / checkpoint
        loaded = load_checkpoint(path, trust=trust_checkpoint)
        network = _build_network(loaded, plans, dataset_json)
        try:
            network.load_state_dict(loaded["network_weights"])
        except RuntimeError as error:
            raise UserError(
                f"{path} does not fit the network of {loaded['trainer_name']} and plans.json: "
                f"{error}"
            ) from error
        networks.append(network.to(device).eval())
        hashes[fold] = sha256(path)
        # without the weights, which take memory
        first = first or {k: v for k, v in loaded.items() if k != "network_weights"}
    axes = first.get("inference_allowed_mirroring_axes")
    return LoadedFolds(
        networks=networks,
        sha256=hashes,
        trainer_name=first["trainer_name"],
        configuration=first["init_args"]["configuration"],
        mirror_axes=tuple(axes) if axes else None,
    )


def _build_network(
    checkpoint: Mapping[str, Any], plans: PlansManager, dataset_json: dict[str, Any]
) -> nn.Module:
    """By the trainer's build_network_architecture, without deep supervision."""
    name, configuration = checkpoint["trainer_name"], checkpoint["init_args"]["configuration"]
    try:
        trainer = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise UserError(
            f"trainer {name} is not found by nnU-Net (for ours: `lngswr register`): {error}"
        ) from error
    if configuration not in plans.available_configurations:
        raise UserError(
            f"plans.json has no configuration {configuration}, which the checkpoint names; it has "
            f"{plans.available_configurations}"
        )
    manager = plans.get_configuration(configuration)
    inputs = determine_num_input_channels(plans, manager, dataset_json)
    outputs = plans.get_label_manager(dataset_json).num_segmentation_heads
    build: Any = trainer.build_network_architecture  # two signatures, by nnU-Net's version
    if "plans_manager" in inspect.signature(build).parameters:
        return build(plans, manager, inputs, outputs, enable_deep_supervision=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return build(
            manager.network_arch_class_name,
            manager.network_arch_init_kwargs,
            manager.network_arch_init_kwargs_req_import,
            inputs,
            outputs,
            enable_deep_supervision=False,
        )
