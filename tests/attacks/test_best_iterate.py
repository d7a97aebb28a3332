"""Which iterate is returned: of the lowest Dice, then of the highest loss; nan never."""

import math
from dataclasses import replace

import pytest
import torch

from nnunetv2_lngswr import attacks
from nnunetv2_lngswr.attacks import (
    BatchModel,
    Bounds,
    ThreatModel,
    run_attack,
    torchattacks_adapter,
)
from nnunetv2_lngswr.attacks.best_iterate import BestIterate
from nnunetv2_lngswr.attacks.hard_dice import foreground_dice
from tests.attacks.problems import SPACE, options, run

TRUTH = torch.tensor([[0, 0, 1, 1]])
X = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
NAN, INF = math.nan, math.inf


def best_of(offers, y=TRUTH):
    """The result of offers (loss, predicted labels, None for logits that are nan), in order."""
    ball = ThreatModel(norm="linf", epsilon=1.0).ball(Bounds.of(X))
    best = BestIterate(X, SPACE.target(y), ball)
    for i, (loss, predicted) in enumerate(offers):
        if predicted is None:
            z = torch.full((1, 2, 4), NAN)
        else:
            z = torch.nn.functional.one_hot(torch.tensor([predicted]), 2).movedim(-1, 1).float()
        best.offer(X + i + 1, torch.tensor([loss]), z)
    return best.result("made", settings={})


def place(result):
    """Which offer was returned, from 0; None for the clean case."""
    shift = int((result.perturbed - X)[0, 0, 0])
    return shift - 1 if shift else None


RIGHT, HALF, WRONG, NOTHING = [0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("offers", "expected", "dice"),
    [
        ([(1.0, RIGHT), (9.0, RIGHT), (0.5, HALF)], 2, 2 / 3),  # Dice before the loss
        ([(1.0, HALF), (3.0, HALF), (2.0, HALF)], 1, 2 / 3),  # the loss among equals
        ([(1.0, HALF), (1.0, HALF)], 0, 2 / 3),  # the first of what is the same
        ([(NAN, None), (1.0, RIGHT)], 1, 1.0),  # nan is the weakest, also as the first
        ([(1.0, RIGHT), (NAN, None)], 0, 1.0),  # the argmax of nan is background: Dice 0
        ([(1.0, HALF), (INF, WRONG)], 0, 2 / 3),
        ([(1.0, HALF), (-INF, WRONG)], 0, 2 / 3),
        ([(NAN, None), (NAN, None)], None, NAN),  # nothing was found
    ],
)
def test_the_best_is_of_the_lowest_dice_and_then_of_the_highest_loss(offers, expected, dice):
    result = best_of(offers)
    assert place(result) == expected
    assert float(result.dice) == pytest.approx(dice, nan_ok=True)
    loss = NAN if expected is None else offers[expected][0]
    assert float(result.loss) == pytest.approx(loss, nan_ok=True)
    lowest = result.best_dice_history[:, 0]
    assert float(lowest[-1]) == pytest.approx(dice, nan_ok=True)


def test_where_there_is_no_foreground_the_loss_decides_until_something_is_found():
    empty = torch.zeros_like(TRUTH)
    undefined = [(1.0, NOTHING), (3.0, NOTHING), (2.0, NOTHING)]
    result = best_of(undefined, empty)
    assert place(result) == 1 and result.dice.isnan().all() and float(result.loss) == 3
    assert place(best_of([*undefined, (NAN, None)], empty)) == 1
    found = best_of([*undefined, (0.5, HALF), (4.0, NOTHING)], empty)
    assert place(found) == 3 and float(found.dice) == 0
    assert found.best_dice_history[:, 0].tolist()[3:] == [0, 0]


# --- how far it fell at last


@pytest.mark.parametrize(
    ("values", "fall"),
    [
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], 0.2),  # two of eight
        ([0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 0.5], 0.0),
        ([0.9, 0.5, 0.8, 0.7, 0.6, 0.5, 0.5, 0.4], 0.1),  # below the lowest so far
        ([0.9, 0.8, 0.6], 0.2),
        ([0.9, 0.6, 0.3, 0.0], 0.0),  # nothing is left
        ([0.9, 0.5], NAN),  # a single step
        ([0.9], NAN),
        ([NAN, NAN, NAN, NAN], NAN),
        ([NAN, NAN, NAN, 0.0], 0.0),
    ],
)
def test_late_fall_is_that_of_the_lowest_dice_over_the_last_quarter(values, fall):
    history = torch.tensor(values, dtype=torch.float64)[:, None]
    result = replace(best_of([(1.0, RIGHT)]), dice_history=history)
    at = range(1, len(values) + 1)
    result = replace(result, gradients=len(values), forwards=0, judged_at=at)
    assert float(result.late_fall) == pytest.approx(fall, nan_ok=True)


def test_steps_at_larger_radii_count_to_the_quarter():
    history = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5], dtype=torch.float64)[:, None]
    result = replace(best_of([(1.0, RIGHT)]), dice_history=history, forwards=0)
    for at, steps, fall in (
        (range(8, 13), 12, 0.3),  # the last five of twelve, of which three are the quarter
        (range(36, 41), 40, 0.4),  # all in the last quarter: since the first of them
        ((4, 5, 6, 11, 12), 12, 0.2),  # two restarts, each with a larger radius first
    ):
        found = replace(result, gradients=steps, judged_at=at)
        assert float(found.late_fall) == pytest.approx(fall)


@pytest.mark.parametrize("name", ["pgd_linf", "apgd_js", "apgd_dice", "worst-v1"])
def test_every_candidate_is_known_by_its_evaluation(name, trained):
    _, found = run(name, trained, **({"steps": 6} if name != "worst-v1" else {}))
    at = list(found.judged_at)
    assert len(at) == len(found.dice_history) and at == sorted(at)
    assert at[-1] == found.queries and (name == "pgd_linf") == (len(at) == found.queries)


# --- attacks on models that overflow


class Overflowing(BatchModel):
    """Everything is nan at the looks of these numbers, from 0."""

    def __init__(self, network, at):
        super().__init__(network)
        self.at, self.looks = at, 0

    def _forward(self, x):
        z = super()._forward(x)
        self.looks += 1
        return z * NAN if self.looks - 1 in self.at else z


GRADIENTS = ("pgd_linf", "segpgd", "cospgd", "apgd", "apgd_js", "apgd_dice")


def attack(name, model, trained, **more):
    network, x, y = trained[2]
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(Bounds.of(x))
    generator = torch.Generator().manual_seed(0)
    return run_attack(name, model, x, SPACE.target(y), ball, generator=generator, **more)


@pytest.mark.parametrize("name", (*GRADIENTS, "fgsm", "square"))
def test_a_nan_is_counted_never_returned_and_the_attack_goes_on(name, trained):
    network = trained[2][0]
    steps = {} if name == "fgsm" else {"steps": 12, "restarts": 2}
    whole = attack(name, BatchModel(network), trained, **steps)
    assert (whole.non_finite == 0).all()
    result = attack(name, Overflowing(network, at={0}), trained, **steps)
    assert (result.non_finite == 1).all()
    assert result.dice.isfinite().all() and result.loss.isfinite().all()
    assert result.queries == whole.queries
    assert result.perturbed.isfinite().all()
    with torch.no_grad():
        z = network(result.perturbed)
    dice = foreground_dice(z, SPACE.target(trained[2][2]))
    assert torch.equal(dice, result.dice)
    if name != "fgsm":  # whose second look is at the clean case again: it had no gradient
        assert (result.dice < 0.95).any()


def test_a_nan_in_between_is_no_best_iterate(trained):
    network = trained[2][0]
    for at in range(5):
        result = attack("pgd_linf", Overflowing(network, at={at}), trained, steps=4)
        assert result.dice.isfinite().all() and (result.non_finite == 1).all()
        assert (result.dice > 0).all()  # the argmax of nan would be 0


# of those of one norm only, the loop is the same in the other
LINF = [n for n, spec in attacks.ATTACKS.items() if "linf" in spec.norms]


@pytest.mark.parametrize("name", [*LINF, "torchattacks:PGD"])
def test_a_model_of_nothing_but_nan_returns_the_clean_case_and_says_so(name, trained):
    if name.startswith("torchattacks"):
        pytest.importorskip("torchattacks")
    network, x, y = trained[2]
    model = Overflowing(network, at=range(10**6))
    if attacks.get_attack(name).needs_features:
        model.network = Broken(network)
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(Bounds.of(x))
    chosen = options(name, network)
    generator = torch.Generator().manual_seed(0)
    result = run_attack(name, model, x, SPACE.target(y), ball, generator=generator, **chosen)
    assert torch.equal(result.perturbed, x) and (result.non_finite > 0).all()
    assert result.dice.isnan().all() and result.loss.isnan().all()


class Broken(torch.nn.Module):
    """A network whose bottleneck is nan."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def encoder(self, x):
        return self.network.encoder(x)[-1] * NAN

    def forward(self, x):
        return self.network(x)


def test_a_gradient_that_is_not_finite_is_none_and_is_counted(trained):
    network, x, _ = trained[2]

    class Steep(BatchModel):
        def value_and_gradient(self, x, loss):
            value, gradient, z = super().value_and_gradient(x, loss)
            gradient[:, :, :8] = math.inf
            gradient[0, :, 8:] = NAN
            return value, gradient, z

    result = attack("pgd_linf", Steep(network), trained, steps=5, random_start=False)
    assert (result.non_finite == 5).all() and result.dice.isfinite().all()
    moved = (result.perturbed - x).abs().flatten(2)
    assert not moved[:, :, : 8 * x.shape[3]].any() and moved[1:].flatten(1).any(1).all()


def test_ssah_goes_on_after_a_nan(trained):
    network = trained[2][0]

    class NanAtFirst(BatchModel):
        looks = 0

        def feature_value_and_gradient(self, x, loss):
            value, gradient = super().feature_value_and_gradient(x, loss)
            self.looks += 1
            return (value * NAN, gradient * NAN) if self.looks == 1 else (value, gradient)

    result = attack("ssah", NanAtFirst(network), trained, steps=150)
    assert (result.non_finite == 1).all() and (result.norms["linf_range"] > 1e-4).all()


def test_what_torchattacks_returns_is_used_where_it_is_finite(trained, monkeypatch):
    base = pytest.importorskip("torchattacks.attack").Attack

    class Lost(base):
        def __init__(self, model):
            super().__init__("Lost", model)
            self.supported_mode = ["default"]

        def __call__(self, images, labels):
            return torch.where(torch.arange(images.shape[-1]) < 4, NAN, images + 0.05)

    monkeypatch.setattr(torchattacks_adapter, "classes", lambda: {"Lost": Lost})
    _, x, _ = trained[2]
    result = attack("torchattacks:Lost", BatchModel(trained[2][0]), trained)
    moved = (result.perturbed - x)[..., 4:]
    assert torch.equal(result.perturbed[..., :4], x[..., :4]) and moved.max() > 0.1


def test_transfer_counts_what_its_surrogate_met(trained):
    network, x, y = trained[2]
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(Bounds.of(x))
    result = run_attack(
        "transfer",
        BatchModel(network),
        x,
        SPACE.target(y),
        ball,
        generator=torch.Generator().manual_seed(0),
        surrogate=Overflowing(network, at={1}),
        steps=3,
    )
    assert (result.non_finite == 1).all()
