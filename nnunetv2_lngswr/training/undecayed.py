"""Parameters that weight decay leaves alone, whatever optimiser and schedule a trainer has made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.nn import Parameter
from torch.optim import Optimizer

# what schedules of torch hold for each group
_OF_GROUPS = ("base_lrs", "lr_lambdas", "min_lrs", "max_lrs")


def undecay(optimizer: Optimizer, scheduler: Any, parameters: Sequence[Parameter]) -> bool:
    """Give parameters a group of their own, the last, with the options of the one that had them.

    Parameters
    ----------
    optimizer
        Has them.
    scheduler
        Of the optimizer; one of torch's learns of the group.
    parameters
        Of one group, or in their own already.

    Returns
    -------
    bool
        Whether that was to be done.
    """
    own = {id(p) for p in parameters}
    groups = optimizer.param_groups
    of = [n for n, group in enumerate(groups) if own & {id(p) for p in group["params"]}]
    if not of:  # an optimiser of other parameters alone
        return False
    number, group = of[0], groups[of[0]]
    if not group.get("weight_decay") and {id(p) for p in group["params"]} == own:
        return False
    group["params"] = [p for p in group["params"] if id(p) not in own]
    options = {key: value for key, value in group.items() if key != "params"}
    optimizer.add_param_group({**options, "params": [*parameters], "weight_decay": 0.0})
    for name in _OF_GROUPS:
        held = getattr(scheduler, name, None)
        if isinstance(held, list):
            held.append(held[number])
    return True
