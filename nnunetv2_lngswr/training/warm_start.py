"""Turning a vanilla nnU-Net checkpoint into a start for LNG-SWR."""

from __future__ import annotations

import io
import os

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr, is_backbone_key
from nnunetv2_lngswr.training.settings import read_settings
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file


@torch.no_grad()
def load_warm_start(network: nn.Module, checkpoint: dict) -> None:
    """Load all weights of `checkpoint`, segmentation heads included, into `network`.

    A vanilla checkpoint also sets the learned part of every reconstruction to the identity, so that
    `network` then computes what the vanilla network computes; an LNG-SWR checkpoint is loaded as it
    is.

    Raises
    ------
    UserError
        The checkpoint's backbone is another architecture; names the first keys that differ.
    """
    target = network.state_dict()
    weights = _backbone_weights(checkpoint)
    _refuse_another_architecture(weights, target)
    own = {k: v for k, v in checkpoint["network_weights"].items() if not is_backbone_key(k)}
    if own:
        network.load_state_dict({**weights, **own})
        return
    network.load_state_dict({**target, **weights})
    lngswr = find_lngswr(network)
    if lngswr is not None:
        for _, branch in lngswr.branches():
            branch.become_identity()


def warm_start_checkpoint(source: str | os.PathLike, destination: str | os.PathLike) -> None:
    """Make of a vanilla nnU-Net v2 checkpoint a start for a training of LNG-SWR.

    What it writes is for ``nnUNetv2_train -tr nnUNetTrainerLNGSWR -pretrained_weights``: the same
    backbone, LNG-SWR's parts at the identity, tensors on the CPU. Plans and data set are those
    inside the checkpoint; a ``lngswr`` entry of these plans is respected. nnU-Net's loader never
    copies segmentation heads: to keep them, name the checkpoint as ``warm_start`` in the plans
    entry instead.

    Parameters
    ----------
    source, destination : paths of the two checkpoints

    Raises
    ------
    UserError
        Not a checkpoint, no plans inside, an entry in them that is invalid, or an architecture that
        LNG-SWR cannot be attached to.
    """
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
    network = nnUNetTrainer.build_network_architecture(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, init_args["dataset_json"]),
        plans.get_label_manager(init_args["dataset_json"]).num_segmentation_heads,
        enable_deep_supervision=True,
    )
    # the defaults of nnUNetTrainerLNGSWR
    method = read_settings(configuration.configuration, method=LNGSWRConfig()).method
    assert method is not None
    try:
        attach(network, method)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    load_warm_start(network, checkpoint)
    converted = {
        **checkpoint,
        "network_weights": {k: v.cpu() for k, v in network.state_dict().items()},
    }
    # an optimiser state of other parameters would be refused, or worse, accepted
    converted.pop("optimizer_state", None)
    # torch tells of a full disk by an error of its own, Python by one that `run_main` knows
    content = io.BytesIO()
    torch.save(converted, content)
    write_file(destination, content.getvalue())


def _backbone_weights(checkpoint: dict) -> dict[str, Tensor]:
    """The backbone's part of a checkpoint, without the prefixes of DDP (``module.``) and of
    torch.compile (``_orig_mod.``)."""
    weights = {}
    for key, value in checkpoint["network_weights"].items():
        key = key.removeprefix("module.").removeprefix("_orig_mod.")
        if is_backbone_key(key):
            weights[key] = value
    return weights


def _refuse_another_architecture(weights: dict[str, Tensor], target: dict[str, Tensor]) -> None:
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
        shown = "; ".join(problems[:3])
        if len(problems) > 3:
            shown += f"; and {len(problems) - 3} more"
        raise UserError(f"the checkpoint is of another architecture than the network: {shown}")
