"""The demo's plans: a smaller network that our trainers take."""

import copy

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lngswr.experiments.demo import BUDGETS, shrink_plans
from nnunetv2_lngswr.trainers import nnUNetTrainerLNGSWR
from nnunetv2_lngswr.training.settings import read_settings
from tests.experiments.demo.planned import planned


@pytest.mark.parametrize("kind", sorted(BUDGETS))
def test_shrunk_plans_are_a_copy_under_another_name(kind):
    plans = planned(kind)
    before = copy.deepcopy(plans)
    shrunk = shrink_plans(plans, BUDGETS[kind])
    assert plans == before
    # the results folder carries the name, and the preprocessed data are found by the identifier
    assert shrunk["plans_name"] != plans["plans_name"]
    configuration = shrunk["configurations"][BUDGETS[kind].configuration]
    assert configuration["data_identifier"] == "nnUNetPlans_x"
    assert (
        configuration["lngswr"] == BUDGETS[kind].entry
        and configuration["lngswr"] is not BUDGETS[kind].entry
    )


@pytest.mark.parametrize("kind", sorted(BUDGETS))
def test_the_trainers_take_the_shrunk_plans(kind):
    manager = PlansManager(shrink_plans(planned(kind), BUDGETS[kind]))
    configuration = manager.get_configuration(BUDGETS[kind].configuration)
    settings = read_settings(configuration.configuration).run
    assert settings.num_epochs == BUDGETS[kind].entry["num_epochs"] and settings.seed == 0
    network = nnUNetTrainerLNGSWR.build_network_architecture(
        manager, configuration, 1, 2, False
    ).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, *configuration.patch_size)).shape == (
            1,
            2,
            *configuration.patch_size,
        )
    assert sum(p.numel() for p in network.parameters()) < 2_000_000
