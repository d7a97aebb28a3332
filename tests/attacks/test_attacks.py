"""Laws that every attack keeps, on U-Nets in 2D and 3D."""

import math

import pytest
import torch

from nnunetv2_lngswr import attacks
from nnunetv2_lngswr.attacks import BatchModel, Bounds, LabelSpace, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.apgd import apgd
from nnunetv2_lngswr.attacks.best_iterate import BestIterate
from nnunetv2_lngswr.attacks.segpgd import wrong_weight
from nnunetv2_lngswr.attacks.ssah import _Semantics, low_frequencies
from tests.model_folders import make_network

SPACE = LabelSpace.softmax(2)
QUICK = {"steps": 4}
CASES = [(n, norm.value) for n, spec in attacks.ATTACKS.items() for norm in spec.norms]


def options(name, network, **more):
    spec = attacks.get_attack(name)
    chosen = {k: v for k, v in {**QUICK, **more}.items() if k in spec.tunable}
    return {**chosen, "surrogate": BatchModel(network)} if spec.needs_surrogate else chosen


def run(name, trained, *, norm="linf", epsilon=0.05, dimension=2, seed=0, cases=2, **more):
    network, x, y = trained[dimension]
    x, y = x[:cases], y[:cases]
    ball = ThreatModel(norm=norm, epsilon=epsilon).ball(Bounds.of(x))
    generator = torch.Generator().manual_seed(seed)
    return x, run_attack(
        name,
        BatchModel(network),
        x,
        SPACE.target(y),
        ball,
        generator=generator,
        **options(name, network, **more),
    )


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


@pytest.mark.parametrize("name", ("noise", "pgd_linf", "segpgd", "square", "apgd"))
def test_another_seed_gives_another_perturbation(name, trained):
    assert not torch.equal(
        run(name, trained, seed=0)[1].perturbed, run(name, trained, seed=1)[1].perturbed
    )


@pytest.mark.parametrize(
    "name", ("pgd_linf", "segpgd", "cospgd", "apgd", "apgd_masked_ce", "apgd_js", "square")
)
def test_best_loss_never_falls_and_is_the_loss_of_what_is_returned(name, trained):
    network, _, y = trained[2]
    x, result = run(name, trained, steps=10)
    history = result.best_loss_history
    assert (history.diff(dim=0) >= 0).all() and torch.equal(history[-1], result.loss)
    judge = attacks.losses.jensen_shannon if name == "apgd_js" else attacks.losses.cross_entropy
    with torch.no_grad():
        again = judge(network(result.perturbed), SPACE.target(y[:2]))
    assert torch.allclose(again.double(), result.loss, rtol=1e-4)


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


@pytest.mark.parametrize("name", ("pgd_linf", "segpgd", "apgd"))
def test_a_large_epsilon_drives_dice_to_zero(name, trained):
    _, result = run(name, trained, epsilon=1.0, steps=40)
    assert result.dice.max() < 0.05


@pytest.mark.parametrize("name", ("pgd_linf", "apgd"))
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
    other = make_network(2, seed=5)
    from tests.model_folders import fit

    surrogate = BatchModel(fit(other, x, y))
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


def test_fgsm_is_a_full_signed_step(trained):
    network, x, y = trained[2]
    x, y = x[:1].double(), y[:1]
    network = make_network(2, seed=1).double()
    network.load_state_dict(trained[2][0].state_dict())
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(network(leaf), y), leaf)
    ball = ThreatModel(norm="linf", epsilon=0.01).ball(Bounds.of(x))
    result = run_attack(
        "fgsm", BatchModel(network), x, SPACE.target(y), ball, generator=torch.Generator()
    )
    expected = (x + 0.01 * (x.max() - x.min()) * gradient.sign()).clamp(x.min(), x.max())
    assert torch.allclose(result.perturbed, expected, atol=1e-12) and result.gradients == 1


def test_noise_is_random_signs_at_the_full_budget(trained):
    x, result = run("noise", trained, epsilon=0.01)
    inner = (x - x.flatten(2).amin(2)[..., None, None] > 0.5) & (
        x.flatten(2).amax(2)[..., None, None] - x > 0.5
    )
    size = (
        (result.perturbed - x).abs()
        / (x.flatten(2).amax(2) - x.flatten(2).amin(2))[..., None, None]
    )[inner]
    assert torch.allclose(size, torch.full_like(size, 0.01), rtol=1e-3)
    _, l2 = run("noise", trained, norm="l2", epsilon=0.01)
    assert torch.allclose(
        l2.norms["rms_range"], torch.full((2,), 0.01, dtype=torch.float64), rtol=0.02
    )


def test_l2_noise_is_isotropic_in_units_of_epsilon(trained):
    _, x, y = trained[2]
    x = torch.cat((x, 100 * x[:, :1]), 1)[:1]  # two channels with far ranges
    ball = ThreatModel(norm="l2", epsilon=0.01).ball(Bounds.of(x))
    model = BatchModel(torch.nn.Conv2d(2, 2, 1))
    perturbed = run_attack(
        "noise", model, x, SPACE.target(y[:1]), ball, generator=torch.Generator().manual_seed(0)
    ).perturbed
    rms = ((perturbed - x) / ball.scale.view(1, 2, 1, 1)).square().mean((2, 3)).sqrt()[0]
    assert float(rms[0]) == pytest.approx(
        float(rms[1]), rel=0.3
    )  # few voxels; the channels differ by 100


def test_segpgd_weight_runs_from_zero_towards_one_half():
    assert [wrong_weight(t, 4) for t in range(1, 5)] == [0, 1 / 8, 2 / 8, 3 / 8]


def test_segpgd_uses_the_weight_of_its_step(trained):
    # the value of each ascended loss, recomputed at the iterate with the schedule's weight
    network, x, y = trained[2]
    x, y, seen = x[:1], y[:1], []

    class Recorder(BatchModel):
        def value_and_gradient(self, at, loss):
            out = super().value_and_gradient(at, loss)
            seen.append((out[2], float(out[0])))
            return out

    ball = ThreatModel(norm="linf", epsilon=0.2).ball(Bounds.of(x))
    run_attack(
        "segpgd",
        Recorder(network),
        x,
        SPACE.target(y),
        ball,
        generator=torch.Generator().manual_seed(0),
        steps=6,
    )
    for t, (z, value) in enumerate(seen, start=1):
        expected = attacks.losses.segpgd_loss((t - 1) / 12)(z, SPACE.target(y))
        assert math.isclose(value, float(expected), rel_tol=1e-6)
    assert len(seen) == 6 and not math.isclose(
        seen[-1][1],
        float(attacks.losses.segpgd_loss(0.0)(seen[-1][0], SPACE.target(y))),
        rel_tol=1e-3,
    )


def per_voxel(formula, z, y):
    """Mean over a case's voxels of formula(p, label), z (1, K, h, w), one voxel after the other."""
    values = []
    for i, j in torch.cartesian_prod(*[torch.arange(n) for n in y.shape[1:]]).tolist():
        e = [math.exp(v) for v in z[0, :, i, j].double().tolist()]
        values.append(formula([v / sum(e) for v in e], int(y[0, i, j])))
    return sum(values) / len(values)


def jensen_shannon(p, label):
    truth = [float(k == label) for k in range(len(p))]
    middle = [(a + b) / 2 for a, b in zip(p, truth)]

    def kl(a):
        return sum(v * math.log(v / m) for v, m in zip(a, middle) if v > 0)

    return (kl(p) + kl(truth)) / 2


FORMULAS = {
    "ce": lambda p, label: -math.log(p[label]),
    "masked_ce": lambda p, label: -math.log(p[label]) if p[label] == max(p) else 0.0,
    "js": jensen_shannon,
    "cospgd": lambda p, label: -math.log(p[label]) * p[label] / math.hypot(*p),
}


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("pgd_linf", "ce"),
        ("fgsm", "ce"),
        ("apgd", "ce"),
        ("apgd_masked_ce", "masked_ce"),
        ("apgd_js", "js"),
        ("cospgd", "cospgd"),
    ],
)
def test_the_loss_that_is_ascended_is_the_one_of_the_name(name, formula, trained):
    # at every iterate where a gradient is taken: the loss handed to the model, on the logits that the model has there
    network, x, y = trained[2]
    x, y, seen = x[:1], y[:1], []

    class Recorder(BatchModel):
        def value_and_gradient(self, at, loss):
            out = super().value_and_gradient(at, loss)
            seen.append((out[2], float(out[0])))
            return out

    ball = ThreatModel(norm="linf", epsilon=0.2).ball(Bounds.of(x))
    model = Recorder(network)
    run_attack(
        name,
        model,
        x,
        SPACE.target(y),
        ball,
        generator=torch.Generator().manual_seed(0),
        **options(name, network, steps=6),
    )
    assert len(seen) >= (1 if name == "fgsm" else 6)
    for z, value in seen:
        assert math.isclose(value, per_voxel(FORMULAS[formula], z, y), rel_tol=1e-4)
    # the formulas can be told apart there (fgsm looks at the clean case only, where nearly all is right)
    found = sorted(per_voxel(f, seen[-1][0], y) for f in FORMULAS.values())
    assert name == "fgsm" or all(b > 1.01 * a for a, b in zip(found, found[1:])), found


class Quadratic:
    """z = (0, s) per voxel: CE of label 0 rises with s; s peaks where x = 0.5, so ascent overshoots and oscillates."""

    def logits(self, x):
        s = -((x - 0.5) ** 2)
        return torch.cat([torch.zeros_like(s), s], 1)

    def value_and_gradient(self, x, loss):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            z = self.logits(leaf)
            value = loss(z)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient, z.detach()


def test_apgd_halves_its_step_only_at_checkpoints_and_converges():
    x = torch.linspace(0, 1, 11, dtype=torch.float64).reshape(1, 1, 11)
    ball = ThreatModel(norm="linf", epsilon=0.3).ball(Bounds.of(x))
    target = LabelSpace.softmax(2).target(torch.zeros(1, 11, dtype=torch.long))
    result = apgd(
        Quadratic(),
        x,
        target,
        ball,
        generator=torch.Generator().manual_seed(0),
        steps=100,
        radius_schedule=False,
    )
    sizes = result.extras["step_sizes"][:, 0].tolist()
    assert sizes[0] == 0.6
    # checkpoints of T = 100: intervals 22, 19, 16, 13, 10, 7, 6, 6, ...
    checkpoints, at = set(), 0
    for interval in (22, 19, 16, 13, 10, 7, 6, 6):
        at += interval
        checkpoints.add(at)
    changes = {k for k in range(1, 100) if sizes[k] != sizes[k - 1]}
    assert (
        changes
        and changes <= checkpoints
        and all(math.isclose(sizes[k], sizes[k - 1] / 2) for k in changes)
    )
    assert 22 in changes  # oscillation around the peak is seen at the first checkpoint
    # the optimum of every voxel: 0.5 where it is within 0.3, else the nearest end of the ball
    optimum = torch.minimum(torch.maximum(torch.full_like(x, 0.5), x - 0.3), x + 0.3)
    assert (result.perturbed - optimum).abs().max() < 0.01


def test_apgd_keeps_its_step_while_the_loss_rises_and_shrinks_the_radius(monkeypatch):
    monkeypatch.setattr(
        BestIterate, "solved", False
    )  # there is nothing to segment: Dice is 0 from the start

    class Linear(Quadratic):
        def logits(self, x):
            return torch.cat([torch.zeros_like(x), 1e-3 * x], 1)

    # wide bounds and a tiny ball: x rises without reaching the end of [min, max]
    x = torch.tensor([[[0.0, 0.5, 1.0]]], dtype=torch.float64)
    target = LabelSpace.softmax(2).target(torch.zeros(1, 3, dtype=torch.long))
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(Bounds.of(x))
    result = apgd(Linear(), x, target, ball, generator=torch.Generator().manual_seed(0), steps=20)
    sizes = result.extras["step_sizes"][:, 0]
    # stages of 6, 6 and 8 steps start at 2 * (2, 1.5, 1) * 0.1
    assert [round(float(sizes[k]), 12) for k in (0, 6, 12)] == [0.4, 0.3, 0.2] and len(sizes) == 20
    assert result.norms["linf_range"].max() <= 0.1 + 1e-12
    assert torch.allclose(result.perturbed, torch.tensor([[[0.1, 0.6, 1.0]]], dtype=torch.float64))


@pytest.mark.parametrize("shape", ((32, 24), (1, 24, 32), (12, 12, 10)))
def test_squares_shrink_on_the_published_schedule(shape):
    # a model that nothing moves: every candidate is the start with one cube redrawn, so the cube's side can be read off
    seen = []

    class Still:
        def logits(self, x):
            seen.append(x.clone())
            return torch.zeros(1, 2, *x.shape[2:])

    x = 0.5 + 0.01 * torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0))
    x.flatten()[:2] = torch.tensor([0.0, 1.0])
    ball = ThreatModel(norm="linf", epsilon=0.3).ball(Bounds.of(x))
    target = SPACE.target(torch.zeros(1, *shape, dtype=torch.long))
    steps = 150
    run_attack(
        "square", Still(), x, target, ball, generator=torch.Generator().manual_seed(0), steps=steps
    )
    start, *candidates = seen
    axis = next(
        a for a, n in enumerate(shape) if n > 1
    )  # stripes run along it, so a cube covers whole stretches of them
    drawn, length = 0, sum(n > 1 for n in shape)
    for query, candidate in enumerate(candidates):
        # p = 0.8, halved after these of 10000 queries (Andriushchenko et al. 2020, section 4.1 and their code)
        halvings = sum(
            query / steps * 10000 > n for n in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
        )
        side = max(round((0.8 / 2**halvings * math.prod(shape)) ** (1 / length)), 1)
        changed = (candidate - start)[0, 0].abs() > 1e-6
        along = changed.any(tuple(a for a in range(len(shape)) if a != axis))
        if changed.any():
            drawn += 1
            at = along.nonzero().flatten()
            assert len(at) == int(at[-1] - at[0]) + 1 == min(side, shape[axis]), query
    assert len(candidates) == steps and drawn > steps / 2


@pytest.mark.parametrize("shape", ((4, 6), (5, 7), (1, 5, 4), (4, 4, 2)))
def test_low_frequencies_are_the_haar_reconstruction_without_details(shape):
    pywt = pytest.importorskip("pywt", reason="PyWavelets is the oracle")
    x = torch.randn((1, 1, *shape), dtype=torch.float64)
    axes = tuple(i for i, n in enumerate(shape) if n > 1)
    image = x[0, 0].numpy()
    padded = image
    for axis in axes:
        if padded.shape[axis] % 2:
            import numpy as np

            padded = np.concatenate([padded, padded.take([-1], axis)], axis)
    bands = pywt.dwtn(padded, "haar", axes=axes)
    low = pywt.idwtn(
        {k: v if set(k) == {"a"} else v * 0 for k, v in bands.items()}, "haar", axes=axes
    )
    expected = torch.from_numpy(low[tuple(slice(n) for n in shape)])
    assert torch.allclose(low_frequencies(x, len(shape))[0, 0], expected)


@pytest.mark.parametrize("dimension", (2, 3))
def test_ssah_moves_features_and_spares_low_frequencies(dimension, trained):
    x, result = run("ssah", trained, dimension=dimension, steps=150)
    assert (result.extras["feature_loss"] < result.extras["start_loss"]).all()
    assert (result.norms["linf_range"] > 1e-3).all()
    # far less low-frequency energy than noise of the same RMS has
    delta = result.perturbed - x
    noise = torch.randn(delta.shape, generator=torch.Generator().manual_seed(0)) * delta.flatten(
        1
    ).std(1).reshape(-1, *[1] * (x.ndim - 1))

    def low(d):
        return low_frequencies(d, dimension).square().mean()

    assert low(delta) < 0.1 * low(noise)


def test_ssah_without_its_constraint_leaves_the_low_frequencies(trained):
    # the constraint does the sparing: with a weight of 0 the same law fails
    network, x, y = trained[2]
    ball, target = (
        ThreatModel(norm="linf", epsilon=0.05).ball(Bounds.of(x[:2])),
        SPACE.target(y[:2]),
    )

    def share(weight):
        r = run_attack(
            "ssah",
            BatchModel(network),
            x[:2],
            target,
            ball,
            generator=torch.Generator(),
            steps=150,
            low_frequency_weight=weight,
        )
        delta = r.perturbed - x[:2]
        return float(low_frequencies(delta, 2).square().sum() / delta.square().sum())

    assert share(0.1) < 0.5 * share(0.0)


def test_ssah_leaves_the_clean_case_with_one_window_only(trained):
    # s_p = 1 is a saddle there: without a first random step nothing moves
    _, result = run("ssah", trained, cases=1, steps=150)
    assert result.extras["windows"] == 1 and result.norms["linf_range"] > 1e-3
    assert (result.extras["feature_loss"] < result.extras["start_loss"]).all()


def test_ssah_negatives_of_windows_without_foreground_are_pooled_globally(trained):
    network, x, y = trained[2]
    y = y.clone()
    y[0] = 0
    semantics = _Semantics(BatchModel(network), x, SPACE.target(y), margin=0.2)
    assert torch.allclose(
        semantics.clean.norm(dim=2), torch.ones(len(x), 2)
    )  # a zero vector would be the least similar to all
    assert torch.equal(semantics.clean[0, 0], semantics.clean[0, 1]) and not torch.equal(
        semantics.clean[1, 0], semantics.clean[1, 1]
    )


def test_unknown_attacks_and_misuse_are_named(trained):
    network, x, y = trained[2]
    with pytest.raises(ValueError, match="unknown attack 'pgd_lin'; did you mean pgd_linf"):
        attacks.get_attack("pgd_lin")
    arguments = (BatchModel(network), x, SPACE.target(y))
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(Bounds.of(x))
    generator = torch.Generator()
    with pytest.raises(ValueError, match="works in l2, got linf"):
        run_attack("pgd_l2", *arguments, ball, generator=generator)
    with pytest.raises(ValueError, match="surrogate"):
        run_attack("transfer", *arguments, ball, generator=generator)
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        run_attack("pgd_linf", *arguments, ball, generator=generator, steps=0)
    with pytest.raises(ValueError, match="step_size must be > 0"):
        run_attack("pgd_linf", *arguments, ball, generator=generator, step_size=0.0)
    with pytest.raises(ValueError, match="fixes loss"):
        run_attack("apgd_js", *arguments, ball, generator=generator, loss="ce")


@pytest.mark.parametrize(
    "space",
    (
        LabelSpace(heads=((1, 2), (2,)), regions=True, ignore_label=3),
        LabelSpace.softmax(3, ignore_label=3),
    ),
)
@pytest.mark.parametrize(
    "name", ("pgd_linf", "segpgd", "cospgd", "apgd_masked_ce", "apgd_js", "square", "ssah")
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
