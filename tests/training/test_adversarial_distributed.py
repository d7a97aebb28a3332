"""Late and rolling adversarial training on two gloo ranks on CPU, where nnU-Net's need CUDA."""

import math
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

from nnunetv2_lngswr import trainers
from tests import tiny_dataset

WORLD = 2
ENTRY = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "seed": 0,
    "adversarial": {"start": 0.5, "epsilon": 0.05, "restart_lr": 0.5},
}
ROLLING = {**ENTRY, "adversarial": {"scheme": "free", "replays": 2, "rolling": True}}


def train(plans, entry):
    """(the network's state, what was logged, samples of each training step's batch)"""
    trainer = tiny_dataset.make_trainer(trainers.nnUNetTrainerLNGSWRAT, plans, entry=entry)
    # with ranks nnU-Net takes CUDA, whatever it is asked for
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None
    given, train_step = [], trainer.train_step
    trainer.train_step = lambda batch: given.append(len(batch["data"])) or train_step(batch)
    trainer.run_training()
    state = {k: v.detach().clone() for k, v in trainer._bare_network().state_dict().items()}
    return state, trainer._logged, given


def worker(rank, root, plans):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{root}/rendezvous", rank=rank, world_size=WORLD
    )
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[variable] = f"{root}/{variable}"
    wrap = module.DDP
    module.DDP = lambda network, device_ids: wrap(network)
    result = {"late": train(plans, ENTRY)}
    plans["plans_name"] = "rolling"
    plans["configurations"]["2d"]["batch_size"] = 4  # 2 on each rank
    result["rolling"] = train(plans, ROLLING)
    torch.save(result, f"{root}/rank{rank}.pt")
    dist.barrier()  # a rank that leaves while the other still talks aborts
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    root = tmp_path_factory.mktemp("ddp")
    plans = tiny_dataset.make_dataset(root)
    mp.spawn(worker, args=(str(root), plans), nprocs=WORLD)
    return [torch.load(root / f"rank{r}.pt", weights_only=False) for r in range(WORLD)]


@pytest.mark.parametrize("training", ["late", "rolling"])
def test_the_ranks_end_with_the_same_network(ranks, training):
    one, other = (rank[training][0] for rank in ranks)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_the_ranks_agree_on_phases_rates_and_curve(ranks):
    one, other = (rank["late"][1] for rank in ranks)
    assert one["lrs"] == other["lrs"] == pytest.approx([0.01, 0.005])
    for key in ("robust_fg_dice", "ema_robust_fg_dice", "fgsm_fg_dice", "selection"):
        assert math.isnan(one[key][0]) and math.isnan(other[key][0])
        assert one[key][1] == other[key][1] and math.isfinite(one[key][1])


def test_each_rank_rolls_its_own_batch(ranks):
    for rank in ranks:
        _, logged, given = rank["rolling"]
        assert given == [2, 1, 2, 1]  # a whole batch, then half of it
        assert all(math.isfinite(value) for value in logged["robust_fg_dice"])
