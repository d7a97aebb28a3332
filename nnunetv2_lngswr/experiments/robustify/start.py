"""What a fold of the new training starts from: the given weights in the new trainer's network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from evaluation.model.folds import Fold
from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.experiments.robustify.given_model import GivenModel
from nnunetv2_lngswr.training.plans_entry import PlansEntryTrainer
from nnunetv2_lngswr.training.warm_start import build_network, load_warm_start
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from nnunetv2_lngswr.utils.errors import blamed_on


def make_start(
    model: GivenModel, fold: Fold, plans: Mapping[str, Any], trainer: str, *, trust: bool
) -> dict[str, Any]:
    """Return a checkpoint of the new trainer's network before its first step, weights alone.

    It computes what the given model computes: LNG-SWR's parts that this model has not begin at the
    identity. It holds nothing but tensors and plain values, whatever the given one does.

    Parameters
    ----------
    model, fold
        Where the weights come from.
    plans
        Of the new training.
    trainer
        Name of one of ours.
    trust
        Unpickle all that the given checkpoint holds.

    Raises
    ------
    UserError
        The settings are refused, LNG-SWR cannot be attached to this network, or the weights do not
        fit.
    """
    manager = PlansManager(dict(plans))
    configuration = manager.get_configuration(model.configuration)
    cls: type[PlansEntryTrainer] = getattr(trainers, trainer)
    cls.read_settings(configuration.configuration)
    dataset_json = dict(model.dataset_json)
    with blamed_on(f"{model.folder}: {trainer} cannot build its network"):
        network = build_network(cls, manager, configuration, dataset_json)
    source = model.checkpoint_file(fold)
    load_warm_start(network, load_checkpoint(source, trust=trust), source)
    return {
        "network_weights": {key: value.cpu() for key, value in network.state_dict().items()},
        "trainer_name": trainer,
        "init_args": {
            "plans": dict(plans),
            "configuration": model.configuration,
            "fold": fold,
            "dataset_json": dataset_json,
        },
    }
