"""What is known of a network that is given in memory."""

import torch
from torch import nn

from evaluation.model.given import GivenModel, device_of, label_manager
from nnunetv2_lngswr.attacks import BatchModel


def test_a_model_with_gradients_of_its_own_is_found_and_hashed():
    network = nn.Conv2d(1, 2, 3, padding=1)
    assert device_of(BatchModel(network)) == torch.device("cpu")
    manager = label_manager({"background": 0, "ball": 1}, None)
    parts = {"labels": manager, "name": "n", "dataset": "d", "device": torch.device("cpu")}
    alone, wrapped = (
        GivenModel(network, None, **parts).describe() for network in (network, BatchModel(network))
    )
    assert wrapped["checkpoint_sha256"] == alone["checkpoint_sha256"] != {}
