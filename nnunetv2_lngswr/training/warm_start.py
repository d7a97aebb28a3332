"""Turning a vanilla nnU-Net checkpoint into a start for LNG-SWR."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr, is_backbone_key
from nnunetv2_lngswr.training.settings import read_settings
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint, refuse_non_finite, save_checkpoint
from nnunetv2_lngswr.utils.errors import UserError, blamed_on
from nnunetv2_lngswr.utils.model_files import check_description, get_configuration
from nnunetv2_lngswr.utils.names import some_names


@torch.no_grad()
def load_warm_start(
    network: nn.Module, checkpoint: dict, source: str | os.PathLike = "the checkpoint"
) -> None:
    """Load all weights of `checkpoint`, segmentation heads included, into `network`.

    A vanilla checkpoint also sets the learned part of every reconstruction to the identity, so that
    `network` then computes what the vanilla network computes; an LNG-SWR checkpoint is loaded as it
    is.

    Parameters
    ----------
    network
        LNG-SWR's or a plain one; unchanged where an error is raised before its weights fit.
    checkpoint
        As `load_checkpoint` returns it.
    source
        Where that was, for the text.

    Raises
    ------
    UserError
        The checkpoint's backbone or its LNG-SWR parts are of another architecture; names the first
        keys that differ. Or its weights are not finite. Or it is a vanilla one, and the network's
        gates are not learned, so that they would stay at the identity.
    """
    target = network.state_dict()
    given = _without_prefixes(checkpoint["network_weights"])
    weights = {k: v for k, v in given.items() if is_backbone_key(k)}
    _refuse_another_architecture(weights, target, source)
    own = {k: v for k, v in given.items() if not is_backbone_key(k)}
    if own:
        with blamed_on(f"the LNG-SWR parts in {source} are of other settings than the network's"):
            network.load_state_dict({**weights, **own})
        refuse_non_finite(network, source)
        return
    lngswr = find_lngswr(network)
    if lngswr is not None and not all(b.leaves_identity for _, b in lngswr.branches()):
        raise UserError(
            f"{source} has no LNG-SWR parts, so that the reconstruction starts as the identity, "
            'and "learn_gates": false would keep it there: leave that out, or do not start from '
            "this checkpoint"
        )
    network.load_state_dict({**target, **weights})
    refuse_non_finite(network, source)
    if lngswr is not None:
        for _, branch in lngswr.branches():
            branch.become_identity()


def warm_start_checkpoint(
    source: str | os.PathLike, destination: str | os.PathLike, *, trust_checkpoint: bool = False
) -> None:
    """Make of a vanilla nnU-Net v2 checkpoint a start for a training of LNG-SWR.

    What it writes is for ``nnUNetv2_train -tr nnUNetTrainerLNGSWR -pretrained_weights``: the same
    backbone, LNG-SWR's parts at the identity, tensors on the CPU. Plans and data set are those
    inside the checkpoint; a ``lngswr`` entry of these plans is respected. nnU-Net's loader never
    copies segmentation heads: to keep them, name the checkpoint as ``warm_start`` in the plans
    entry instead.

    Parameters
    ----------
    source, destination
        Paths of the two checkpoints.
    trust_checkpoint
        Unpickle all that the checkpoint holds and import all that the plans inside it name, which
        can run code.

    Raises
    ------
    UserError
        Not a checkpoint, no plans inside, plans or an entry in them that are invalid or name what
        must not be imported, an architecture that LNG-SWR cannot be attached to, or a destination
        that is no file of its own.
    OSError
        The destination cannot be written.
    """
    _check_destination(Path(source), Path(destination))
    checkpoint = load_checkpoint(source, trust=trust_checkpoint)
    if any(not is_backbone_key(k) for k in checkpoint["network_weights"]):
        raise UserError(
            f"{source} has LNG-SWR parts already: pass it to -pretrained_weights as it is"
        )
    network, configuration = _vanilla_network(source, checkpoint, trust=trust_checkpoint)
    # the defaults of nnUNetTrainerLNGSWR
    method = read_settings(configuration, method=LNGSWRConfig()).method
    assert method is not None
    try:
        attach(network, method, patch_size=configuration.get("patch_size"))
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    load_warm_start(network, checkpoint, source)
    converted = {
        **checkpoint,
        "network_weights": {k: v.cpu() for k, v in network.state_dict().items()},
    }
    # an optimiser state of other parameters would be refused, or worse, accepted
    converted.pop("optimizer_state", None)
    save_checkpoint(converted, destination)


def _check_destination(source: Path, destination: Path) -> None:
    if destination.is_dir():
        raise UserError(f"{destination} is a folder; give the file to write")
    if not destination.parent.is_dir():
        raise UserError(f"{destination} cannot be written: there is no folder {destination.parent}")
    if source.exists() and destination.exists() and source.samefile(destination):
        raise UserError(f"{destination} is the source itself; give another file to write")


def _vanilla_network(
    source: str | os.PathLike, checkpoint: dict, *, trust: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """(the network of the plans inside a checkpoint, the configuration of these plans)."""
    init_args = checkpoint["init_args"]
    absent = [k for k in ("plans", "configuration", "dataset_json") if k not in init_args]
    if absent:
        raise UserError(
            f"{source} is not an nnU-Net v2 checkpoint: its 'init_args' lack {', '.join(absent)}"
        )
    where = f"the plans in {source}"
    dataset_json = init_args["dataset_json"]
    plans = check_description(
        init_args["plans"],
        dataset_json,
        plans_are=where,
        dataset_json_is=f"dataset_json in {source}",
    )
    configuration = get_configuration(
        plans,
        init_args["configuration"],
        dataset_json=dataset_json,
        where=where,
        trust=trust,
    )
    with blamed_on(f"{where}: nnU-Net cannot build the network"):
        network = build_network(nnUNetTrainer, plans, configuration, dataset_json)
    return network, configuration.configuration


def build_network(
    trainer: type[nnUNetTrainer],
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: dict[str, Any],
) -> nn.Module:
    """The network that a trainer would begin with."""
    network = trainer.build_network_architecture(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset_json),
        plans.get_label_manager(dataset_json).num_segmentation_heads,
        enable_deep_supervision=True,
    )
    assert isinstance(network, nn.Module)
    return network


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the keys that they have without DDP (``module.``) and torch.compile
    (``_orig_mod.``)."""
    return {k.removeprefix("module.").removeprefix("_orig_mod."): v for k, v in weights.items()}


def _refuse_another_architecture(
    weights: dict[str, Tensor], target: dict[str, Tensor], source: str | os.PathLike
) -> None:
    """UserError unless the keys and shapes of `weights` are those of the target's backbone."""
    expected = {key: value for key, value in target.items() if is_backbone_key(key)}
    problems = [f"missing: {k}" for k in expected if k not in weights]
    problems += [f"unknown: {k}" for k in weights if k not in expected]
    problems += [
        f"{k}: {tuple(weights[k].shape)} in the checkpoint, {tuple(value.shape)} in the network"
        for k, value in expected.items()
        if k in weights and weights[k].shape != value.shape
    ]
    if problems:
        shown = some_names(problems, 3, between="; ")
        raise UserError(f"{source} is of another architecture than the network: {shown}")
