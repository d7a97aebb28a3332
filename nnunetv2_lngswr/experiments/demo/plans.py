"""The demo's small trainings: what is left of nnU-Net's plans, and the budget."""

import json
from dataclasses import dataclass

PLANS_NAME = "lngswrDemoPlans"


@dataclass(frozen=True)
class Budget:
    """How a set is trained."""

    configuration: str
    batch_size: int
    stages: int
    """At most so many of the network's are kept."""
    features: int
    """Of the first stage; doubled at each further one."""
    entry: dict
    """The plans' "lngswr" entry."""


BUDGETS = {
    "2d": Budget(
        "2d",
        batch_size=4,
        stages=5,
        features=8,
        entry={
            "num_epochs": 6,
            "num_iterations_per_epoch": 50,
            "num_val_iterations_per_epoch": 4,
            "seed": 0,
        },
    ),
    "3d": Budget(
        "3d_fullres",
        batch_size=2,
        stages=4,
        features=8,
        entry={
            "num_epochs": 6,
            "num_iterations_per_epoch": 40,
            "num_val_iterations_per_epoch": 4,
            "seed": 0,
        },
    ),
}


def shrink_plans(plans: dict, budget: Budget, plans_name: str = PLANS_NAME) -> dict:
    """Return a copy of plans whose configuration is a smaller network with a budget.

    The data stay as preprocessed (the configuration keeps its data_identifier); only the network
    and the training change.

    Parameters
    ----------
    plans
        nnU-Net's; stays as it is.
    budget
        What is kept, and the "lngswr" entry.
    plans_name
        The copy's.
    """
    plans = json.loads(json.dumps(plans)) | {"plans_name": plans_name}
    configuration = plans["configurations"][budget.configuration]
    network = configuration["architecture"]["arch_kwargs"]
    stages = min(budget.stages, network["n_stages"])
    network["n_stages"] = stages
    network["features_per_stage"] = [budget.features * 2**stage for stage in range(stages)]
    for key in ("kernel_sizes", "strides", "n_conv_per_stage"):
        network[key] = network[key][:stages]
    network["n_conv_per_stage_decoder"] = network["n_conv_per_stage_decoder"][: stages - 1]
    configuration["batch_size"] = budget.batch_size
    configuration["lngswr"] = dict(budget.entry)
    return plans
