"""LNG-SWR under DistributedDataParallel: two gloo processes on CPU, as nnU-Net's needs CUDA."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr
from tests.model_folders import make_network

WORLD = 2
QUIET = LNGSWRConfig(noise=False, gains="prior")


def batch(step):
    return torch.randn(2 * WORLD, 1, 16, 16, generator=torch.Generator().manual_seed(step))


def train(network, module, inputs, forwards=1):
    """One step as nnU-Net's trainer makes it; `forwards` before the one backward."""
    optimizer = torch.optim.SGD(module.parameters(), 1e-2)
    for x in inputs:
        optimizer.zero_grad()
        sum(network(x).square().mean() for _ in range(forwards)).backward()
        missing = [n for n, p in module.named_parameters() if p.grad is None]
        optimizer.step()
        find_lngswr(module).commit_priors()
        find_lngswr(module).clamp_gates_()
    return missing


def state(module):
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    result = {}
    for name, forwards in (("one", 1), ("two", 2)):
        module = attach(make_network(2), QUIET)
        network = DistributedDataParallel(torch.nn.SyncBatchNorm.convert_sync_batchnorm(module))
        result[f"missing {name}"] = train(
            network, module, [batch(s)[rank::WORLD] for s in range(3)], forwards
        )
        result[name] = state(module)
        # as nnU-Net validates a single case; vanilla's networks do not wait for other ranks either
        if rank == 0:
            with torch.no_grad():
                network(batch(0)[:1])
        dist.barrier()
    noisy = attach(make_network(2), LNGSWRConfig())
    find_lngswr(noisy).seed_noise(lambda layer: 10 * rank + layer)
    result["noise"] = find_lngswr(noisy).image(batch(0)[:1])
    torch.save(result, f"{folder}/rank{rank}.pt")
    dist.barrier()  # a rank that leaves while the other still talks aborts
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    mp.spawn(worker, args=(str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"rank{r}.pt") for r in range(WORLD)]


@pytest.mark.parametrize("name", ["one", "two"])
def test_parameters_and_priors_are_equal_on_all_ranks(ranks, name):
    assert ranks[0][name].keys() == ranks[1][name].keys()
    for key, value in ranks[0][name].items():
        assert torch.equal(value, ranks[1][name][key]), key


@pytest.mark.parametrize("name, forwards", [("one", 1), ("two", 2)])
def test_they_are_those_of_the_joined_batch(ranks, name, forwards):
    module = attach(make_network(2), QUIET)
    train(module, module, [batch(s) for s in range(3)], forwards)
    for key, value in state(module).items():
        assert torch.allclose(ranks[0][name][key], value, rtol=1e-4, atol=1e-6), key
        if key.endswith("prior.steps"):
            assert value == 3


def test_no_parameter_is_without_gradient(ranks):
    assert not any(r[f"missing {n}"] for r in ranks for n in ("one", "two"))


def test_noise_differs_between_ranks(ranks):
    assert not torch.equal(ranks[0]["noise"], ranks[1]["noise"])
