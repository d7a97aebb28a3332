"""Turning a vanilla nnU-Net checkpoint into a start for LNG-SWR."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from nnunetv2_lngswr.method.network import find_lngswr, is_backbone_key
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path


def backbone_weights(checkpoint: dict) -> dict[str, Tensor]:
    """The backbone's part of a checkpoint, without DDP's ``module.`` and torch.compile's ``_orig_mod.`` prefixes."""
    weights = {}
    for key, value in checkpoint["network_weights"].items():
        key = key.removeprefix("module.").removeprefix("_orig_mod.")
        if is_backbone_key(key):
            weights[key] = value
    return weights


@torch.no_grad()
def load_warm_start(network: nn.Module, checkpoint: dict) -> None:
    """Load all weights of `checkpoint`, segmentation heads included, into `network`.

    A vanilla checkpoint also sets the learned part of every reconstruction to the identity, so that `network` then
    computes what the vanilla network computes; an LNG-SWR checkpoint is loaded as it is.

    Raises
    ------
    ValueError: the checkpoint's backbone is another architecture; names the first keys that differ.
    """
    target = network.state_dict()
    weights = backbone_weights(checkpoint)
    expected = {key: value for key, value in target.items() if is_backbone_key(key)}
    missing = [k for k in expected if k not in weights]
    surplus = [k for k in weights if k not in expected]
    differing = [
        f"{k}: {tuple(weights[k].shape)} in the checkpoint, {tuple(expected[k].shape)} in the network"
        for k in expected
        if k in weights and weights[k].shape != expected[k].shape
    ]
    problems = [f"missing: {k}" for k in missing] + [f"unknown: {k}" for k in surplus] + differing
    if problems:
        shown = "; ".join(problems[:3]) + (
            f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        )
        raise UserError(f"the checkpoint is of another architecture than the network: {shown}")
    own = {k: v for k, v in checkpoint["network_weights"].items() if not is_backbone_key(k)}
    if own:
        network.load_state_dict({**weights, **own})
        return
    network.load_state_dict({**target, **weights})
    lngswr = find_lngswr(network)
    for _, branch in lngswr.branches() if lngswr is not None else ():
        branch.become_identity()


def warm_start_checkpoint(source: str | os.PathLike, destination: str | os.PathLike) -> None:
    """Convert a vanilla nnU-Net v2 checkpoint to one that ``nnUNetv2_train -tr nnUNetTrainerLNGSWR
    -pretrained_weights`` takes: the same backbone, LNG-SWR parts at the identity, tensors on the CPU.

    Plans and data set are those inside the checkpoint; a ``lngswr`` entry of these plans is respected. nnU-Net's loader
    never copies segmentation heads: to keep them, name the checkpoint as ``warm_start`` in the plans entry instead.

    Raises
    ------
    ValueError: not a checkpoint, no plans inside, or an architecture that LNG-SWR cannot attach to.
    """
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunetv2_lngswr.trainers import nnUNetTrainerLNGSWR

    checkpoint = load_checkpoint(source)
    if any(not is_backbone_key(k) for k in checkpoint["network_weights"]):
        raise UserError(
            f"{source} has LNG-SWR parts already: pass it to -pretrained_weights as it is"
        )
    init_args = checkpoint.get("init_args") or {}
    absent = [k for k in ("plans", "configuration", "dataset_json") if k not in init_args]
    if absent:
        raise UserError(
            f"{source} is not an nnU-Net v2 checkpoint: its 'init_args' lack {', '.join(absent)}"
        )
    plans = PlansManager(init_args["plans"])
    configuration = plans.get_configuration(init_args["configuration"])
    network = nnUNetTrainerLNGSWR.build_network_architecture(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, init_args["dataset_json"]),
        plans.get_label_manager(init_args["dataset_json"]).num_segmentation_heads,
        enable_deep_supervision=True,
    )
    load_warm_start(network, checkpoint)
    converted = {
        **checkpoint,
        "network_weights": {k: v.cpu() for k, v in network.state_dict().items()},
    }
    # an optimiser state of other parameters would be refused, or worse, accepted
    converted.pop("optimizer_state", None)
    with atomic_path(destination) as temporary:
        torch.save(converted, temporary)
