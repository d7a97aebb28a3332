"""The networks in the checkpoints of a model folder, built as nnU-Net's predictor builds them."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from torch.nn.modules.conv import _ConvNd

from evaluation.model.folds import Fold
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint, refuse_non_finite, sha256
from nnunetv2_lngswr.utils.errors import UserError, blamed_on
from nnunetv2_lngswr.utils.model_files import get_configuration
from nnunetv2_lngswr.utils.plans_names import find_trainer


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

    Parameters
    ----------
    folder, folds, checkpoint
        Where they are.
    plans, dataset_json
        Of the folder, well-formed (`model_files.check_plans`, `model_files.check_dataset_json`).
    device
        Where the networks go.
    trust_checkpoint
        Unpickle all that a checkpoint holds and import all that the plans name, which can run code.

    Raises
    ------
    UserError
        A trainer that nnU-Net does not find; a checkpoint that weights_only refuses, or names in
        the plans that are not nnU-Net's, torch's or ours (unless `trust_checkpoint`); weights that
        do not fit or are not finite; mirroring axes that the patch does not have.
    """
    networks, hashes, first = [], {}, {}
    for fold in folds:
        path = folder / f"fold_{fold}" / checkpoint
        loaded = load_checkpoint(path, trust=trust_checkpoint)
        configuration = loaded["init_args"].get("configuration")
        if first and configuration != first["configuration"]:
            raise UserError(
                f"{path} is of configuration {configuration}, the first fold's of "
                f"{first['configuration']}: they are no folds of one model (-f)"
            )
        manager = get_configuration(
            plans,
            configuration,
            dataset_json=dataset_json,
            where=str(folder / "plans.json"),
            trust=trust_checkpoint,
        )
        network = _build_network(path, loaded, plans, manager, dataset_json)
        _load_weights(path, network, loaded)
        _check_patch(folder / "plans.json", network, manager.patch_size)
        axes = _mirror_axes(path, loaded, len(manager.patch_size))
        networks.append(network.to(device).eval())
        hashes[fold] = sha256(path)
        # without the weights, which take memory
        first = first or {
            "trainer_name": loaded["trainer_name"],
            "configuration": configuration,
            "mirror_axes": axes,
        }
    return LoadedFolds(networks=networks, sha256=hashes, **first)


def _build_network(
    path: Path,
    checkpoint: Mapping[str, Any],
    plans: PlansManager,
    manager: ConfigurationManager,
    dataset_json: dict[str, Any],
) -> nn.Module:
    """By the trainer's build_network_architecture, without deep supervision."""
    name = checkpoint["trainer_name"]
    trainer = find_trainer(name, str(path))
    build: Any = trainer.build_network_architecture  # two signatures, by nnU-Net's version
    where = path.parents[1] / "plans.json"
    with blamed_on(f"{where}: {name} cannot build the network of these plans"):
        inputs = determine_num_input_channels(plans, manager, dataset_json)
        outputs = plans.get_label_manager(dataset_json).num_segmentation_heads
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


def _load_weights(path: Path, network: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    said = f"{path} does not fit the network of {checkpoint['trainer_name']} and plans.json"
    with blamed_on(said):
        network.load_state_dict(checkpoint["network_weights"])
    refuse_non_finite(network, path)


def _check_patch(where: Path, network: nn.Module, patch_size: Sequence[int]) -> None:
    """UserError where the network cannot take a patch: other axes, or not to be halved so often."""
    axes = {m.weight.ndim - 2 for m in network.modules() if isinstance(m, _ConvNd)}
    if axes and len(patch_size) not in axes:
        raise UserError(
            f'{where}: "patch_size" {list(patch_size)} has {len(patch_size)} axes, the network\'s '
            f"convolutions have {sorted(axes)}"
        )
    strides = getattr(getattr(network, "encoder", None), "strides", None)
    if not isinstance(strides, (list, tuple)) or not all(isinstance(s, Sequence) for s in strides):
        return
    factors = [math.prod(s[i] for s in strides) for i in range(len(patch_size))]
    if any(p % f for p, f in zip(patch_size, factors)):
        raise UserError(
            f'{where}: "patch_size" {list(patch_size)} must be divisible by {factors}, by which '
            "the strides of the network divide it"
        )


def _mirror_axes(path: Path, checkpoint: Mapping[str, Any], axes: int) -> tuple[int, ...] | None:
    """Those that the training allows at inference; None for none."""
    given = checkpoint.get("inference_allowed_mirroring_axes")
    if given is None:
        return None
    known = isinstance(given, (list, tuple)) and all(i in range(axes) for i in given)
    if not known or len(set(given)) < len(given):
        raise UserError(
            f"{path}: inference_allowed_mirroring_axes must be some of the patch's axes "
            f"{list(range(axes))}, got {given}"
        )
    return tuple(int(i) for i in given) or None
