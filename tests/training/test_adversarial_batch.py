"""Adversarial training on one batch: the attack is the evaluation's, crafting leaves no trace, bounds, shares, ramp, consistency, detector."""

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks import BatchModel, Bounds, LabelSpace, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.losses import cross_entropy
from nnunetv2_lngswr.method.config import ATConfig, LNGSWRConfig, read_adversarial, read_plans_entry
from nnunetv2_lngswr.method.network import attach, find_lngswr
from nnunetv2_lngswr.training.adversarial_batch import (
    CaseRanges,
    ConsistencyLoss,
    Replay,
    attacked_samples,
    batch_target,
    craft,
    divergence,
    overfits,
    patch_bounds,
    ramp,
)
from tests import model_folders
from tests.model_folders import make_network

SPACE = LabelSpace.softmax(2)


def ball_of(x, norm="linf", epsilon=0.02):
    return ThreatModel(norm=norm, epsilon=epsilon).ball(Bounds.of(x))


def crafted(network, x, y, *, norm="linf", steps=1, epsilon=0.02, seed=0, **more):
    size = 1.25 if steps == 1 else 2.5 / steps
    generator = torch.Generator().manual_seed(seed)
    ball = ball_of(x, norm, epsilon)
    return craft(
        network,
        x,
        SPACE.target(y),
        ball,
        steps=steps,
        relative_step_size=size,
        generator=generator,
        **more,
    )


# --- the attack


@pytest.mark.parametrize("steps", (1, 2, 5))
@pytest.mark.parametrize("norm", ("linf", "l2"))
@pytest.mark.parametrize("dimension", (2, 3))
def test_inner_attack_is_the_evaluations_on_one_window_cases(trained, dimension, norm, steps):
    network, x, y = trained[dimension]
    window = SlidingWindow([network], patch_size=x.shape[2:], window_batch_size=len(x))
    epsilon = 0.02
    result = run_attack(
        f"pgd_{norm}", window, x, SPACE.target(y), ball_of(x, norm, epsilon), generator=torch.Generator().manual_seed(3), steps=steps,
        step_size=1.25 * epsilon if steps == 1 else None,
    )  # fmt: skip
    # the evaluation keeps the worst iterate: here it is the last, which is what training takes
    assert torch.equal(result.loss_history[-1], result.loss)
    inner = crafted(network.train(), x, y, norm=norm, steps=steps, epsilon=epsilon, seed=3)
    network.eval()
    assert torch.equal(inner, result.perturbed)


@pytest.mark.parametrize("steps", (1, 3))
@pytest.mark.parametrize("norm", ("linf", "l2"))
def test_stays_in_the_ball_and_in_the_bounds_and_raises_the_loss(trained, norm, steps):
    network, x, y = trained[2]
    attacked = crafted(network, x, y, norm=norm, steps=steps)
    extent = (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
    delta = ((attacked - x) / extent).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.square().mean(1).sqrt()
    assert (size <= 0.02 * (1 + 1e-5)).all() and (size > 0.009).all()
    assert (attacked.flatten(1).amin(1) >= x.flatten(1).amin(1)).all() and (
        attacked.flatten(1).amax(1) <= x.flatten(1).amax(1)
    ).all()
    target = SPACE.target(y)
    with torch.no_grad():
        assert (cross_entropy(network(attacked), target) > cross_entropy(network(x), target)).all()


def test_epsilon_zero_gives_the_clean_batch_back(trained):
    network, x, y = trained[2]
    assert torch.equal(crafted(network, x, y, epsilon=0.0), x)


def test_integer_images_are_refused(trained):
    network, x, y = trained[2]
    with pytest.raises(ValueError, match="needs floating-point images, got torch.int16"):
        craft(
            network,
            x.short(),
            SPACE.target(y),
            ball_of(x),
            steps=1,
            relative_step_size=1.0,
            generator=torch.Generator(),
        )


def test_crafting_leaves_no_trace(rng):
    network = attach(
        make_network(2, deep_supervision=True, features=(4, 8, 8)), LNGSWRConfig(gains="prior")
    ).train()
    lngswr = find_lngswr(network)
    lngswr.seed_noise(0)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.9)
    x, y = model_folders.batch(2)

    def step():
        optimizer.zero_grad()
        sum(z.square().mean() for z in network(x)).backward()
        optimizer.step()

    step()
    frozen = next(network.parameters()).requires_grad_(False)  # a choice of the user's
    state = lambda: copy.deepcopy(  # noqa: E731
        (
            network.state_dict(),
            dict(network.named_buffers()),
            optimizer.state_dict(),
            {n: p.grad for n, p in network.named_parameters()},
        )
    )
    streams = lambda: (
        torch.get_rng_state(),
        *(b.noise._generator.get_state() for _, b in lngswr.branches()),
    )
    flags = lambda: (
        [m.training for m in network.modules()],
        [p.requires_grad for p in network.parameters()],
    )
    before, streams_before, flags_before = state(), streams(), flags()
    crafted(network, x, y, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(streams(), streams_before))
    assert flags() == flags_before and not frozen.requires_grad and network.decoder.deep_supervision
    for found, expected in zip(state(), before):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_batch_statistics_stay_those_of_the_training(rng):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 2, 1),
    ).train()
    x, y = model_folders.batch(2)
    network(x)
    before = copy.deepcopy(network.state_dict())
    crafted(network, x, y, steps=2)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert network[1].training


def test_half_precision_keeps_the_gradients_of_a_large_image():
    # a million voxels: without a scale their gradients lose most of their digits in fp16
    network = make_network(2, features=(2, 4)).eval()
    x, y = model_folders.batch(2, size=1024, count=1)
    loss = lambda z: cross_entropy(z, SPACE.target(y))  # noqa: E731
    _, exact, _ = BatchModel(network).value_and_gradient(x, loss)
    _, half, z = BatchModel(network, autocast=torch.float16).value_and_gradient(x, loss)
    assert z.dtype == half.dtype == torch.float32
    assert (half.sign() == exact.sign()).float().mean() > 0.95
    assert float((half - exact).norm() / exact.norm()) < 0.05


def test_gradients_that_overflow_make_no_step(rng):
    class Overflowing(torch.nn.Module):
        def forward(self, x):
            return torch.cat((x * float("inf"), x), 1)

    x = torch.rand(1, 1, 4, 4, generator=rng)
    _, gradient, _ = BatchModel(Overflowing(), autocast=torch.bfloat16).value_and_gradient(
        x, lambda z: z.flatten(1).mean(1)
    )
    assert torch.isfinite(gradient).all()


# --- compiled and distributed training around it


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
        # an unequal number of gradients: a collective in any of them would wait for ever, or mix up the next
        attacked = crafted(module, x, y, steps=1 + 2 * rank, seed=step)
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


# --- bounds


class Dataset:
    """As nnU-Net's: counts the cases it reads."""

    def __init__(self, **cases):
        self.identifiers, self.cases, self.reads = sorted(cases), cases, []

    def load_case(self, key):
        self.reads.append(key)
        return self.cases[key], None, None, {}


def test_ranges_are_those_of_the_whole_case_and_read_once():
    case = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    train, val = Dataset(a=case, b=2 * case), Dataset(c=3 * case)
    ranges = CaseRanges(train, val)
    ranges.check_type()
    train.reads.clear()
    for _ in range(2):
        low, high = ranges(np.array(["b", "c", "b"]))
    assert train.reads == ["b"] and val.reads == ["c"]
    assert torch.equal(
        low, torch.tensor([f * case.min((1, 2, 3)) for f in (2, 3, 2)])
    ) and high.shape == (3, 2)


def test_integer_cases_are_refused_by_name():
    with pytest.raises(ValueError, match="the preprocessed case a holds int16"):
        CaseRanges(Dataset(a=np.zeros((1, 1, 4, 4), np.int16))).check_type()


def test_bounds_are_the_cases_widened_to_the_patch():
    x = torch.tensor([[0.0, 5.0], [-3.0, 1.0]]).view(2, 1, 2, 1)  # patches [0, 5] and [-3, 1]
    case = torch.tensor([[-1.0], [-2.0]]), torch.tensor([[2.0], [4.0]])
    bounds = patch_bounds(x, case, 1)
    assert bounds.minimum.tolist() == [[-1], [-3]] and bounds.maximum.tolist() == [[5], [4]]
    assert patch_bounds(x, None, 1).minimum.tolist() == [[0], [-3]]


def test_the_previous_stage_of_a_cascade_is_not_attacked(rng):
    x = torch.rand(2, 3, 8, 8, generator=rng)
    case = torch.full((2, 1), -1.0), torch.full((2, 1), 2.0)
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(patch_bounds(x, case, 1))
    network = make_network(2, inputs=3)
    attacked = craft(
        network,
        x,
        SPACE.target(torch.ones(2, 8, 8)),
        ball,
        steps=1,
        relative_step_size=1.25,
        generator=rng,
    )
    assert torch.equal(attacked[:, 1:], x[:, 1:]) and (
        attacked[:, 0] - x[:, 0]
    ).abs().amax() == pytest.approx(0.3, rel=1e-5)


# --- shares, ramp, replays


@pytest.mark.parametrize(
    "batch_size, share", [(2, 0.25), (2, 0.5), (10, 0.1), (3, 0.0), (3, 1.0), (1, 0.3)]
)
def test_clean_share_is_exact_over_the_steps_and_anywhere_in_the_batch(rng, batch_size, share):
    attacked = [attacked_samples(step, batch_size, share, rng) for step in range(100)]
    assert sum(batch_size - len(a) for a in attacked) == round(100 * batch_size * share)
    assert all(len(set(a.tolist())) == len(a) and (a < batch_size).all() for a in attacked)
    if 0 < share < 1:  # nnU-Net's last samples hold the foreground
        assert {i for a in attacked for i in range(batch_size) if i not in a.tolist()} == set(
            range(batch_size)
        )


def test_ramp_is_linear_then_one():
    assert [ramp(step, 4) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1] and ramp(0, 0) == 1


def test_replay_gives_each_batch_so_many_times_and_restarts_with_a_new_one():
    replay = Replay(iter([[i] for i in range(9)]), 3)
    got = [next(replay) for _ in range(4)]
    assert [b[0] for b in got] == [0, 0, 0, 1] and got[0] is got[2]
    replay.restart()
    assert [next(replay)[0] for _ in range(2)] == [2, 2]


# --- targets, consistency


def test_targets_of_labels_regions_and_ignored_voxels():
    labels = torch.tensor([[0, 1], [2, -1]]).view(1, 1, 2, 2)
    target = batch_target(labels, LabelSpace.softmax(2, ignore_label=2))
    assert target.one_hot[0, 1].tolist() == [[False, True], [False, False]] and target.mask[
        0, 0
    ].tolist() == [[True, True], [False, True]]
    regions = torch.stack(
        [labels[:, 0] > 0, labels[:, 0] == 1, labels[:, 0] == 2], 1
    )  # the last: ignored
    space = LabelSpace(heads=((1, 2), (1,)), regions=True, ignore_label=2)
    target = batch_target(regions, space)
    assert torch.equal(target.one_hot, regions[:, :2]) and torch.equal(target.mask, ~regions[:, 2:])
    target = batch_target(
        regions[:, :2].to(torch.int16), LabelSpace(heads=((1, 2), (1,)), regions=True)
    )
    assert (
        target.one_hot.shape == (1, 2, 2, 2)
        and target.mask.shape == (1, 1, 2, 2)
        and target.mask.all()
    )


@pytest.mark.parametrize("regions", (False, True))
def test_divergence_is_the_mean_kl_and_zero_for_equal_predictions(rng, regions):
    z, other = torch.randn(2, 2, 3, 4, 5, generator=rng)
    mask = torch.rand(2, 1, 4, 5, generator=rng) > 0.3
    kinds = [
        torch.distributions.Bernoulli(logits=t)
        if regions
        else torch.distributions.Categorical(logits=t.movedim(1, -1))
        for t in (z, other)
    ]
    kl = torch.distributions.kl_divergence(*kinds)
    expected = kl[mask.expand(-1, 3, -1, -1)].mean() if regions else kl[mask[:, 0]].mean()
    assert torch.allclose(divergence(z, other, mask, regions=regions), expected, rtol=1e-4)
    assert divergence(z, z, mask, regions=regions).abs() < 1e-6


def test_consistency_loss_is_the_clean_loss_plus_the_weighted_divergence_of_every_scale(rng):
    samples = torch.tensor([1, 2])
    outputs = [torch.randn(3 + 2, 2, n, n, generator=rng, requires_grad=True) for n in (8, 4)]
    targets = [torch.randint(0, 2, (3, 1, n, n), generator=rng) for n in (8, 4)]
    plain = DeepSupervisionWrapper(lambda z, t: F.cross_entropy(z, t[:, 0]), (0.75, 0.25))
    loss = ConsistencyLoss(plain, 3.0, samples, SPACE)(outputs, targets)
    expected = plain([z[:3] for z in outputs], targets)
    for weight, z in zip((0.75, 0.25), outputs):
        expected = expected + 3 * weight * divergence(
            z[samples], z[3:], torch.ones(2, 1, *z.shape[2:]), regions=False
        )
    assert torch.allclose(loss, expected)
    loss.backward()
    assert outputs[0].grad[3:].abs().sum() > 0 and outputs[0].grad[:3].abs().sum() > 0
    single = ConsistencyLoss(
        lambda z, t: F.cross_entropy(z, t[:, 0]), 1.0, samples, SPACE
    )  # no deep supervision
    assert torch.isfinite(single(outputs[0], targets[0]))


# --- detector


@pytest.mark.parametrize(
    "fgsm, pgd, expected",
    [
        ([0.5, 0.6, 0.9], [0.4, 0.5, 0.1], True),  # the classic picture
        ([0.5, 0.6, 0.6], [0.4, 0.5, 0.39], True),
        ([0.5, 0.6, 0.9], [0.4, 0.5, 0.45], False),  # within the margin
        ([0.5, 0.6, 0.2], [0.4, 0.5, 0.1], False),  # both fall: another trouble, or harder batches
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], False),
        ([0.9], [0.1], False),
        ([], [], False),
        ([0.5, 0.9], [float("nan"), 0.1], False),
        ([0.5, 0.9], [0.5, float("nan")], False),
        ([0.5, float("nan"), 0.6], [0.4, float("nan"), 0.1], True),
    ],
)
def test_overfitting_is_pgd_falling_while_fgsm_does_not(fgsm, pgd, expected):
    assert overfits(fgsm, pgd, 0.1) is expected


# --- settings


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epsilon": -0.1}, r"epsilon must be a fraction of the intensity range in \[0, 0.5\).*got -0.1"),
        ({"epsilon": 8}, "epsilon must be a fraction.*got 8"),
        ({"epsilon": "8/0"}, "epsilon must be a fraction.*got '8/0'"),
        ({"epsilon": float("nan")}, "epsilon must be a fraction"),
        ({"epsilon": None}, "epsilon must be a fraction"),
        ({"epsilon": True}, "epsilon must be a fraction"),
        ({"scheme": "fgsm"}, "scheme must be one of fgsm_rs, pgd, free, got 'fgsm'"),
        ({"norm": "l1"}, "norm must be one of linf, l2, got 'l1'"),
        ({"norm": ["l2"]}, "norm must be one of"),
        ({"loss": "dice"}, "loss must be one of ce, "),
        ({"epsilon_range": "image"}, "epsilon_range must be one of case, patch"),
        ({"clean_share": 1.5}, r"clean_share must be a number in \[0, 1\], got 1.5"),
        ({"clean_share": -0.1}, "clean_share must be"),
        ({"ramp_up": 10}, r"ramp_up must be a number in \[0, 1\], got 10"),
        ({"robust_weight": "half"}, "robust_weight must be"),
        ({"steps": 7}, 'steps belongs to scheme "pgd", got 7 with scheme "fgsm_rs"'),
        ({"scheme": "pgd", "steps": 0}, "steps must be an integer >= 1, or null, got 0"),
        ({"scheme": "pgd", "replays": 2}, 'replays belongs to scheme "free"'),
        ({"step_size": 0}, "step_size must be a number > 0"),
        ({"step_size": float("inf")}, "step_size must be a number > 0"),
        ({"consistency": -1}, "consistency must be a number >= 0, got -1"),
        ({"scheme": "free", "consistency": 6}, 'scheme "free" does not make'),
        ({"val_batches": 0}, "val_batches must be an integer >= 1"),
        ({"fallback": "no"}, "fallback must be true or false"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_with_name_rule_and_value(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_adversarial({"lngswr": {"adversarial": settings}})
    assert str(caught.value).startswith('plans: "lngswr": "adversarial": ')


@pytest.mark.parametrize("read", (read_plans_entry, read_adversarial))
def test_unknown_keys_are_named_with_the_nearest_by_every_trainer(read):
    with pytest.raises(
        ValueError, match='unknown key "epsilom" in "lngswr": "adversarial"; did you mean epsilon'
    ):
        read({"lngswr": {"adversarial": {"epsilom": 0.1}}})
    with pytest.raises(
        ValueError, match='unknown key "adversrial" in "lngswr"; did you mean adversarial'
    ):
        read({"lngswr": {"adversrial": {}}})
    with pytest.raises(ValueError, match='"adversarial" must be an object'):
        read({"lngswr": {"adversarial": "pgd"}})


def test_settings_override_defaults_and_fill_in_the_schemes_own():
    config = read_adversarial(
        {"lngswr": {"adversarial": {"epsilon": "8/255"}}}, ATConfig(norm="l2")
    )
    assert config == ATConfig(norm="l2", epsilon=8 / 255)
    sizes = [
        (c.attack_steps, c.relative_step_size)
        for c in (ATConfig(), ATConfig(scheme="pgd", steps=5), ATConfig(scheme="free"))
    ]
    assert sizes == [(1, 1.25), (5, 0.5), (0, 1.0)]
    assert (
        ATConfig(scheme="pgd").attack_steps == 3 and ATConfig(step_size=2).relative_step_size == 2
    )
