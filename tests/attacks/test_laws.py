"""Laws that every attack keeps, on U-Nets in 2D and 3D."""

import math

import pytest
import torch

from nnunetv2_lngswr import attacks
from nnunetv2_lngswr.attacks import (
    BatchModel,
    Bounds,
    LabelSpace,
    ThreatModel,
    losses,
    run_attack,
)
from nnunetv2_lngswr.attacks.best_iterate import BestIterate
from tests.attacks.problems import SPACE, options, run
from tests.model_folders import fit, make_network

CASES = [(n, norm.value) for n, spec in attacks.ATTACKS.items() for norm in spec.norms]


@pytest.mark.parametrize("dimension", (2, 3))
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_stays_in_the_ball_and_in_the_bounds(name, norm, dimension, trained):
    x, result = run(name, trained, norm=norm, dimension=dimension)
    if attacks.get_attack(name).uses_epsilon:
        size = result.norms["linf_range" if norm == "linf" else "rms_range"]
        assert (size <= 0.05 * (1 + 1e-5)).all()
    flat, clean = result.perturbed.flatten(2), x.flatten(2)
    assert (flat.amin(2) >= clean.amin(2)).all() and (flat.amax(2) <= clean.amax(2)).all()
    assert torch.isfinite(result.perturbed).all() and result.attack == name


@pytest.mark.parametrize(("name", "norm"), [c for c in CASES if c[0] != "ssah"])
def test_zero_epsilon_is_identity(name, norm, trained):
    x, result = run(name, trained, norm=norm, epsilon=0.0)
    assert torch.equal(result.perturbed, x)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_same_seed_gives_the_same_bytes_and_leaves_the_global_state(name, norm, trained):
    before = torch.random.get_rng_state()
    _, first = run(name, trained, norm=norm)
    torch.rand(3)  # attacks must not look at the global state
    torch.random.set_rng_state(before)
    _, second = run(name, trained, norm=norm)
    assert first.perturbed.numpy().tobytes() == second.perturbed.numpy().tobytes()
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ("noise", "pgd_linf", "segpgd", "square", "apgd", "apgd_dice"))
def test_another_seed_gives_another_perturbation(name, trained):
    assert not torch.equal(
        run(name, trained, seed=0)[1].perturbed, run(name, trained, seed=1)[1].perturbed
    )


JUDGES = {"apgd_js": losses.jensen_shannon, "apgd_dice": losses.get_loss("scale_free_dice")}


@pytest.mark.parametrize(
    "name",
    ("pgd_linf", "segpgd", "cospgd", "apgd", "apgd_masked_ce", "apgd_js", "apgd_dice", "square"),
)
def test_best_dice_never_rises_and_is_that_of_what_is_returned(name, trained):
    # until issue 19 the iterate of the highest loss was returned, whatever its Dice
    network, _, y = trained[2]
    _, result = run(name, trained, steps=10)
    history = result.best_dice_history
    assert (history.diff(dim=0) <= 0).all() and torch.equal(history[-1], result.dice)
    # of the lowest Dice, the highest loss
    lowest = result.dice_history == result.dice
    losses_there = result.loss_history.masked_fill(~lowest, -math.inf)
    assert torch.equal(losses_there.amax(0), result.loss)
    with torch.no_grad():
        z = network(result.perturbed)
    predicted, truth = z.argmax(1).bool(), y[:2].bool()
    sizes = predicted.flatten(1).sum(1) + truth.flatten(1).sum(1)
    dice = 2 * (predicted & truth).flatten(1).sum(1) / sizes
    assert torch.allclose(dice.double(), result.dice, atol=1e-6)
    judge = JUDGES.get(name, losses.cross_entropy)
    assert torch.allclose(judge(z, SPACE.target(y[:2])).double(), result.loss, rtol=1e-3)


def test_cases_of_a_batch_are_attacked_on_their_own(trained):
    # one deterministic attack on both cases at once and on each alone
    network, x, y = trained[2]

    def attack(x, y):
        ball = ThreatModel(norm="l2", epsilon=0.05).ball(Bounds.of(x))
        return run_attack(
            "pgd_l2",
            BatchModel(network),
            x,
            SPACE.target(y),
            ball,
            generator=torch.Generator(),
            steps=3,
            random_start=False,
        )

    both = attack(x[:2], y[:2]).perturbed
    alone = torch.cat([attack(x[i : i + 1], y[i : i + 1]).perturbed for i in range(2)])
    assert torch.allclose(both, alone, atol=1e-5)


@pytest.mark.parametrize("dimension", (2, 3))
def test_order_of_attacks_on_the_mean(dimension, trained):
    def dice(name, **more):
        return float(
            run(name, trained, dimension=dimension, epsilon=0.1, cases=4, **more)[1].dice.mean()
        )

    noise, pgd5, pgd40 = dice("noise"), dice("pgd_linf", steps=5), dice("pgd_linf", steps=40)
    assert pgd5 < noise - 0.005
    assert pgd40 <= pgd5 + 0.005
    assert pgd40 <= dice("square", steps=30) + 1e-9


@pytest.mark.parametrize("name", ("pgd_linf", "segpgd", "apgd", "apgd_dice"))
def test_a_large_epsilon_drives_dice_to_zero(name, trained):
    _, result = run(name, trained, epsilon=1.0, steps=40)
    assert result.dice.max() < 0.05


@pytest.mark.parametrize("name", ("pgd_linf", "apgd", "apgd_dice"))
def test_an_attack_ends_where_dice_is_zero(name, trained, monkeypatch):
    _, ended = run(name, trained, epsilon=1.0, steps=40, restarts=2)
    monkeypatch.setattr(BestIterate, "solved", False)
    _, whole = run(name, trained, epsilon=1.0, steps=40, restarts=2)
    assert (ended.dice == 0).all() and (whole.dice == 0).all()
    assert ended.queries < whole.queries / 2
    assert ended.loss_history.equal(whole.loss_history[: len(ended.loss_history)])
    # where something is left, nothing ends early
    monkeypatch.undo()
    _, small = run(name, trained, epsilon=0.001, steps=5)
    assert (small.dice > 0).all() and small.gradients >= 5


def test_white_box_is_at_least_as_strong_as_transfer_and_square(trained):
    network, x, y = trained[2]
    surrogate = BatchModel(fit(make_network(2, seed=5), x, y))
    ball, target = ThreatModel(norm="linf", epsilon=0.1).ball(Bounds.of(x)), SPACE.target(y)

    def go(name, **more):
        return run_attack(
            name,
            BatchModel(network),
            x,
            target,
            ball,
            generator=torch.Generator().manual_seed(0),
            steps=10,
            **more,
        )

    white, black = go("pgd_linf"), go("transfer", surrogate=surrogate)
    assert (
        white.loss.mean() >= black.loss.mean()
        and black.extras["surrogate_queries"] == 11
        and black.queries == 1
    )

    def dice(result):
        with torch.no_grad():
            predicted = network(result.perturbed).argmax(1)
        sizes = (predicted + y).flatten(1).sum(1)
        return (2 * (predicted & y).flatten(1).sum(1) / sizes).mean()

    # with as many looks at the model as the search without gradients has
    assert dice(white) < dice(black) - 0.05 and dice(white) < dice(go("square")) - 0.05
    # transferred: made on the surrogate alone, so it is the surrogate's own PGD
    own = run_attack(
        "pgd_linf", surrogate, x, target, ball, generator=torch.Generator().manual_seed(0), steps=10
    )
    assert torch.equal(black.perturbed, own.perturbed)


@pytest.mark.parametrize(
    "space",
    (
        LabelSpace(heads=((1, 2), (2,)), regions=True, ignore_label=3),
        LabelSpace.softmax(3, ignore_label=3),
    ),
)
@pytest.mark.parametrize(
    "name",
    ("pgd_linf", "segpgd", "cospgd", "apgd_masked_ce", "apgd_js", "apgd_dice", "square", "ssah"),
)
def test_regions_and_ignored_voxels(name, space):
    network = make_network(2, outputs=len(space.heads))
    g = torch.Generator().manual_seed(0)
    x = torch.randn((1, 1, 16, 16), generator=g)
    y = torch.randint(0, 4, (1, 16, 16), generator=g)
    ball = ThreatModel(norm="linf", epsilon=0.05).ball(Bounds.of(x))
    result = run_attack(
        name,
        BatchModel(network),
        x,
        space.target(y),
        ball,
        generator=g,
        **options(name, network, steps=150 if name == "ssah" else 4),
    )
    assert (result.norms["linf_range"] > 0).all() and torch.isfinite(result.loss).all()
