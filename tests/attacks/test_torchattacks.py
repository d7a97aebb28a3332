"""torchattacks as the oracle of our PGD, and through the adapter."""

import pytest
import torch
from torch.nn import functional as F

from nnunetv2_lngswr.attacks import BatchModel, Bounds, LabelSpace, ThreatModel, run_attack

torchattacks = pytest.importorskip(
    "torchattacks", reason="torchattacks is an optional extra: pip install --no-deps torchattacks"
)
SPACE = LabelSpace.softmax(2)
STEPS = 10


@pytest.fixture(scope="module")
def problem(trained):
    """Images in [0, 1] with 0 and 1 taken, so that both libraries clip alike."""
    network, x, y = trained[2]
    low, high = x.flatten(1).amin(1).reshape(-1, 1, 1, 1), x.flatten(1).amax(1).reshape(-1, 1, 1, 1)
    return network, (x - low) / (high - low), y


@pytest.mark.parametrize("norm", ("linf", "l2"))
def test_same_final_loss_as_torchattacks(norm, problem):
    network, x, y = problem
    epsilon = 8 / 255 if norm == "linf" else 4 / 255
    radius = epsilon if norm == "linf" else epsilon * x[0].numel() ** 0.5
    kind = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = kind(network, eps=radius, alpha=2.5 * radius / STEPS, steps=STEPS)(x, y)
    ball = ThreatModel(norm=norm, epsilon=epsilon).ball(Bounds.of(x))
    ours = run_attack(
        f"pgd_{norm}",
        BatchModel(network),
        x,
        SPACE.target(y),
        ball,
        generator=torch.Generator().manual_seed(0),
        steps=STEPS,
    )

    def loss(at):
        with torch.no_grad():
            return float(F.cross_entropy(network(at), y))

    assert loss(theirs) > 1.2 * loss(x)  # the attack does something
    assert abs(loss(ours.perturbed) - loss(theirs)) < 0.02 * loss(theirs)


@pytest.mark.parametrize(
    ("name", "norm"), [("PGD", "linf"), ("PGDL2", "l2"), ("MIFGSM", "linf"), ("FGSM", "linf")]
)
def test_adapter_runs_2d_attacks_of_a_five_axis_case(name, norm, problem):
    network, x, y = problem
    # a z-scored case of one slice, as nnU-Net has it
    x, y = (3 * x[:1] - 1)[:, :, None], y[:1, None]

    class OneSlice(BatchModel):
        def logits(self, x):
            return super().logits(x[:, :, 0])[:, :, None]

        def value_and_gradient(self, x, loss):
            value, gradient, z = super().value_and_gradient(
                x[:, :, 0], lambda z: loss(z[:, :, None])
            )
            return value, gradient[:, :, None], z[:, :, None]

    ball = ThreatModel(norm=norm, epsilon=0.03).ball(Bounds.of(x))
    state = torch.random.get_rng_state()
    results = [
        run_attack(
            f"torchattacks:{name}",
            OneSlice(network),
            x,
            SPACE.target(y),
            ball,
            generator=torch.Generator().manual_seed(0),
        )
        for _ in range(2)
    ]
    assert torch.equal(results[0].perturbed, results[1].perturbed) and torch.equal(
        torch.random.get_rng_state(), state
    )
    clean = run_attack(
        "noise",
        OneSlice(network),
        x,
        SPACE.target(y),
        ball,
        generator=torch.Generator().manual_seed(0),
    )
    assert results[0].loss > clean.loss and results[0].gradients >= 1
    assert results[0].norms["linf_range" if norm == "linf" else "rms_range"] <= 0.03 * (1 + 1e-5)


@pytest.mark.parametrize(("name", "norm"), [("PGD", "linf"), ("PGDL2", "l2")])
@pytest.mark.parametrize("epsilon", [1 / 255, 0.2])
def test_adapter_uses_the_ball_up(name, norm, epsilon, problem):
    network, x, y = problem
    ball = ThreatModel(norm=norm, epsilon=epsilon).ball(Bounds.of(x))

    def found(attack, **options):
        generator = torch.Generator().manual_seed(0)
        model = BatchModel(network)
        return run_attack(
            attack, model, x, SPACE.target(y), ball, generator=generator, steps=10, **options
        )

    theirs = found(f"torchattacks:{name}")
    radius = epsilon * (x[0].numel() ** 0.5 if norm == "l2" else 1)
    assert theirs.settings["alpha"] == pytest.approx(0.25 * radius)
    ours = found(f"pgd_{norm}")
    size = "linf_range" if norm == "linf" else "rms_range"
    assert (theirs.norms[size] > 0.8 * ours.norms[size]).all()
    assert found(f"torchattacks:{name}", alpha=0.01).settings["alpha"] == 0.01


def test_adapter_names_what_it_cannot_do(problem):
    network, x, y = problem
    model, target = BatchModel(network), SPACE.target(y)
    linf = ThreatModel(norm="linf", epsilon=0.03).ball(Bounds.of(x))
    with pytest.raises(ValueError, match="unknown torchattacks attack 'PGDD'; did you mean PGD"):
        run_attack("torchattacks:PGDD", model, x, target, linf, generator=torch.Generator())
    with pytest.raises(ValueError, match="works in l2, got linf"):
        run_attack("torchattacks:PGDL2", model, x, target, linf, generator=torch.Generator())
    ball = ThreatModel(norm="linf", epsilon=0.03, unit="normalized").ball(Bounds.of(x * 2))
    with pytest.raises(ValueError, match="range"):
        run_attack("torchattacks:PGD", model, x * 2, target, ball, generator=torch.Generator())
    with pytest.raises(ValueError, match="2D"):
        run_attack(
            "torchattacks:PGD",
            model,
            x.reshape(1, 1, 2, 32, 16),
            target,
            linf,
            generator=torch.Generator(),
        )
