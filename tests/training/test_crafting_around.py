"""Crafting beside compiled and distributed training."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach
from nnunetv2_lngswr.training.robust_curve import STRONG, curve_attacks
from nnunetv2_lngswr.training.settings import ATConfig
from tests import model_folders
from tests.model_folders import make_network
from tests.training.crafting import SPACE, ball_of, crafted


def test_training_forward_compiles_as_one_graph_once():
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    network = attach(
        make_network(2, deep_supervision=True, features=(4, 8, 8)), LNGSWRConfig()
    ).train()
    counter = CompileCounter()
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    x, y = model_folders.batch(2)
    for seed in range(3):
        attacked = crafted(network, x, y, steps=2, seed=seed)  # the bare module
        sum(z.square().mean() for z in compiled(attacked)).backward()
    assert counter.frame_count == 1
    torch._dynamo.reset()


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    module = attach(make_network(2), LNGSWRConfig(noise=False))
    network = DistributedDataParallel(torch.nn.SyncBatchNorm.convert_sync_batchnorm(module))
    optimizer = torch.optim.SGD(network.parameters(), 1e-2)
    x, y = model_folders.batch(2, seed=10 * rank)
    for step in range(2):
        # an unequal number of gradients: a collective in any of them would wait for ever, or mix up
        # the next
        attacked = crafted(module, x, y, steps=1 + 2 * rank, seed=step)
        strong = curve_attacks(STRONG, ATConfig(val_steps=1 + rank))["strong"]
        generator = torch.Generator().manual_seed(rank)
        strong(module, x, SPACE.target(y), ball_of(x), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(network(attacked), y).backward()
        assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
        optimizer.step()
    torch.save(dict(module.named_parameters()), f"{folder}/rank{rank}.pt")
    dist.barrier()  # a rank that leaves while the other still talks aborts
    dist.destroy_process_group()


def test_ranks_craft_on_their_own_and_train_together(tmp_path):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{r}.pt") for r in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
