"""attach(): what it adds, what it leaves alone, where it works."""

import copy
import pickle

import pytest
import torch
from torch import nn

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr, is_backbone_key
from nnunetv2_lngswr.method.noise import noise_band_energy
from nnunetv2_lngswr.method.scales import scales_up_to
from tests.method.networks import FEATURES, STRIDES, image, make

IDENTITY = LNGSWRConfig(noise=False, gains=(1.0, 1.0))


@pytest.mark.parametrize("kind", ["plain", "resenc"])
@pytest.mark.parametrize("strides", list(STRIDES))
@pytest.mark.parametrize("channels", [1, 3])
def test_backbone_keys_stay_and_identity_settings_compute_what_vanilla_computes(
    kind, strides, channels
):
    vanilla = make(kind, strides, channels)
    ours = attach(make(kind, strides, channels), IDENTITY)
    backbone = {k: v for k, v in ours.state_dict().items() if is_backbone_key(k)}
    assert list(backbone) == list(vanilla.state_dict())
    x = image(strides, channels)
    for expected, found in zip(vanilla.eval()(x), ours.eval()(x)):
        assert torch.equal(expected, found)
    assert ours.decoder.deep_supervision is True


def test_the_parts_are_where_the_network_is():
    ours = attach(make().to("meta"), LNGSWRConfig(fusion="conv"))
    assert {t.device.type for t in [*ours.parameters(), *ours.buffers()]} == {"meta"}


@pytest.mark.parametrize("options", [{}, {"fusion": "conv"}, {"bottleneck_fusion": True}])
def test_attaching_draws_nothing_from_the_random_stream(options):
    network = make()
    before = torch.get_rng_state()
    attach(network, LNGSWRConfig(**options))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fusing_convolution_starts_as_the_gate_says(rng):
    for gate in (0.0, 0.25, 1.0):
        ours = find_lngswr(attach(make(), LNGSWRConfig(fusion="conv", gate_init=gate)))
        branch = next(b for _, b in ours.branches() if b.convolution is not None).eval()
        channels = branch.convolution.out_channels
        x = torch.randn((2, channels, 8, 8), generator=rng)
        with torch.no_grad():
            expected = (1 - gate) * x + gate * branch.reconstruction(x)
            assert torch.allclose(branch(x), expected, atol=1e-5)


def test_noise_of_every_layer_has_the_strength_and_a_seed_of_its_own():
    ours = find_lngswr(attach(make(), LNGSWRConfig(noise_guided=0.1)))
    ours.set_noise_strength(0.3)
    branches = [b for _, b in ours.branches()]
    parts = [p for b in branches for p in (b.noise, b.guidance)]
    assert len(parts) > 6 and None not in parts
    assert [float(p.strength) for p in parts] == pytest.approx([0.3] * len(parts))
    asked = []
    ours.seed_noise(lambda layer: asked.append(layer) or layer)
    assert asked == list(range(len(branches)))
    x = torch.randn((2, FEATURES[1], 8, 8))
    one, other = (branches[i].noise.train() for i in (1, 2))
    assert not torch.equal(one(x) - x, other(x) - x)


def test_a_gain_is_shown_where_one_is_applied():
    gates = find_lngswr(attach(make(), LNGSWRConfig(gate_init=0.25))).state()["input"]["gain"]
    assert gates == pytest.approx([1, 0.78, 0.78, 0.755])  # 1 - a (1 - g)
    mixed = find_lngswr(attach(make(), LNGSWRConfig(fusion="conv", gate_init=0.25))).state()
    assert not any("gain" in branch for branch in mixed.values()) and "prior" in mixed["input"]


@pytest.mark.parametrize("kind", ["plain", "resenc"])
@pytest.mark.parametrize("strides", list(STRIDES))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gains": "prior"},
        {"wavelet": "db2"},
        {"fusion": "conv"},
        {"bottleneck_fusion": True},
        {"reconstruct_bottleneck": True},
        {"noise_spectrum": "white"},
        {"learn_gates": False},
    ],
)
def test_every_learned_part_gets_a_gradient(kind, strides, options):
    network = attach(make(kind, strides), LNGSWRConfig(**options))
    for _ in range(2):  # twice: gates of the prior live once the prior is known
        sum(out.square().mean() for out in network(image(strides))).backward()
        find_lngswr(network).commit_priors()
    missing = [n for n, p in network.named_parameters() if p.grad is None]
    assert not missing
    assert bool(find_lngswr(network).gate_parameters()) == (
        options.get("learn_gates", True) and options.get("fusion") != "conv"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["input", "stage 0", "stage 1"]),
        ({"reconstruct_from_stage": 1}, ["input", "stage 1"]),
        ({"reconstruct_from_stage": 2, "reconstruct_bottleneck": True}, ["input", "stage 2"]),
        ({"reconstruct_input": False}, ["stage 0", "stage 1"]),
        ({"reconstruct_stages": False}, ["input"]),
        ({"reconstruction": False}, []),
    ],
)
def test_only_the_named_branches_reconstruct(options, expected):
    lngswr = find_lngswr(attach(make(), LNGSWRConfig(**options)))
    assert [
        name for name, branch in lngswr.branches() if branch.reconstruction is not None
    ] == expected


def test_wavelet_axes_are_those_pooled_next():
    lngswr = find_lngswr(
        attach(make(strides="anisotropic"), LNGSWRConfig(reconstruct_bottleneck=True))
    )
    assert {name: branch.reconstruction.axes for name, branch in lngswr.branches()} == {
        "input": (1, 2),
        "stage 0": (1, 2),
        "stage 1": (0, 1, 2),
        "stage 2": (0, 1, 2),
    }


def test_unpooled_axes_do_not_mix():
    """A change in one slice moves only that slice of the image's reconstruction."""
    branch = find_lngswr(attach(make(strides="anisotropic"), LNGSWRConfig())).image.eval()
    x = image("anisotropic")
    y = x.clone()
    y[:, :, 3] += 1
    changed = (branch(y) - branch(x)).abs().amax((0, 1, 3, 4)) > 0
    assert changed.nonzero().flatten().tolist() == [3]


def test_eval_mode_is_deterministic_and_free_of_noise():
    network = attach(make(), LNGSWRConfig())
    x = image()
    network.train()
    assert not torch.equal(network(x)[0], network(x)[0])
    network.eval()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    assert torch.equal(network(x)[0], network(x)[0])
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert not find_lngswr(network).image.prior.pending[-1] > 2 * len(
        x
    )  # nothing observed in eval mode


def test_raw_intensities_far_from_zero_get_the_noise_of_their_own_spread():
    network = attach(make(), LNGSWRConfig(noise_random_amplitude=False, reconstruct_input=False))
    lngswr = find_lngswr(network)
    x, added = 1e4 + 3 * image(), []
    lngswr.image.noise.register_forward_hook(lambda _, given, got: added.append(got - given[0]))
    network.train()(x)
    lngswr.commit_priors()
    noise = lngswr.image.noise
    assert float(added[0].std()) == pytest.approx(noise.sigma_max * float(x.std()), rel=0.2)
    assert float(lngswr.image.prior.variance.sqrt()) == pytest.approx(float(x.std()), rel=0.05)


def test_reconstruction_takes_the_high_bands_out():
    """With gains 0 only blocks' means pass: the encoder sees no checkerboard."""
    network = attach(make(), LNGSWRConfig(noise=False, gains=(0.0, 0.0)))
    x = image()
    checkers = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8)
    network.eval()
    assert torch.allclose(network(x + 5 * checkers)[0], network(x)[0], atol=1e-4)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_a_copy_runs_its_own_parts(copier):
    network = attach(make(), LNGSWRConfig(noise=False)).eval()
    other = copier(network)
    x = image()
    before = network(x)[0]
    with torch.no_grad():
        for theta in find_lngswr(other).gate_parameters():
            theta.zero_()
    assert torch.equal(network(x)[0], before)
    assert not torch.equal(other(x)[0], before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    network = attach(make(), LNGSWRConfig())
    with torch.autocast("cpu", dtype):
        output = network(image())
        loss = sum(o.float().square().mean() for o in output)
    loss.backward()
    assert output[0].dtype == dtype and all(
        p.grad.isfinite().all() for p in network.parameters() if p.grad is not None
    )
    (exact,) = [attach(make(), LNGSWRConfig(noise=False)).eval()]
    with torch.no_grad(), torch.autocast("cpu", dtype):
        low = exact(image())[0].float()
    with torch.no_grad():
        full = exact(image())[0]
    assert (low - full).abs().max() < 0.1 * full.abs().max()


def test_odd_sizes_and_thin_volumes_pass():
    network = attach(make(strides="anisotropic"), LNGSWRConfig())
    branch = find_lngswr(network).stages[1]
    x = torch.randn(2, FEATURES[1], 1, 7, 9)
    assert branch(x).shape == x.shape
    assert branch.eval()(x).shape == x.shape


def test_each_branch_has_the_noise_that_remains_at_its_resolution():
    config = LNGSWRConfig(noise_max_stride=8, noise_random_grid=True)
    lngswr = find_lngswr(attach(make(strides="anisotropic"), config, patch_size=(12, 33, 32)))
    expected = {
        "input": scales_up_to(8, (1, 1, 1), (12, 33, 32)),
        "stage 0": scales_up_to(8, (1, 1, 1), (12, 33, 32)),
        "stage 1": ((1, 1, 1), (2, 1, 1), (4, 2, 2), (8, 4, 4)),
        "stage 2": ((1, 1, 1), (2, 1, 1), (4, 2, 2)),
    }
    assert {name: branch.noise.scales for name, branch in lngswr.branches()} == expected
    assert all(branch.noise.random_grid for _, branch in lngswr.branches())
    for name, branch in lngswr.branches():
        axes = branch.prior.axes
        scales = [tuple(scale[axis] for axis in axes) for scale in expected[name]]
        unit = noise_band_energy("multiscale", "haar", len(axes), scales=scales, random_grid=True)
        assert torch.allclose(branch.prior.unit_energy, torch.tensor(unit, dtype=torch.float32))


def test_a_largest_stride_needs_a_patch_that_holds_it():
    with pytest.raises(ValueError, match="noise_max_stride needs a patch_size, got 8 without one"):
        attach(make(), LNGSWRConfig(noise_max_stride=8))
    with pytest.raises(ValueError, match="noise_max_stride must be at most 16.* 16 x 8 .* got 32"):
        attach(make(), LNGSWRConfig(noise_max_stride=32), patch_size=(16, 8))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gains": "prior", "wavelet": "db2", "bottleneck_fusion": True},
        {"noise_max_stride": 16, "noise_random_grid": True},
    ],
)
def test_compiles_without_a_graph_break_and_computes_the_same(options):
    torch._dynamo.reset()
    network = attach(make(), LNGSWRConfig(**options), patch_size=(16, 16))
    x = image()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    network.eval()
    with torch.no_grad():
        assert torch.allclose(compiled(x)[0], network(x)[0], atol=1e-5)
    network.train()
    torch._dynamo.utils.counters.clear()
    for _ in range(4):
        sum(o.square().mean() for o in compiled(x)).backward()
        find_lngswr(network).commit_priors()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 1  # warm after the first step
    assert int(find_lngswr(network).image.prior.steps) == 4
    assert not torch.equal(
        compiled(x)[0], compiled(x)[0]
    )  # the noise is drawn anew in compiled code


class Other(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(2, 2)


@pytest.mark.parametrize("options", [{}, {"noise_max_stride": 16, "noise_random_grid": True}])
def test_compiled_it_takes_batches_of_other_sizes(options):
    torch._dynamo.reset()
    network = attach(make(), LNGSWRConfig(**options), patch_size=(16, 16)).train()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for size in (2, 4, 3):
        assert len(compiled(image()[:1].repeat(size, 1, 1, 1))[0]) == size


def test_what_has_no_stages_is_refused_with_what_was_looked_for():
    with pytest.raises(
        ValueError, match="'encoder' that holds its 'stages'.*Sequential has no 'encoder'"
    ):
        attach(nn.Sequential(), LNGSWRConfig())
    with pytest.raises(ValueError, match="an encoder without it: Linear"):
        attach(Other(), LNGSWRConfig())
    with pytest.raises(ValueError, match="attached already"):
        attach(attach(make(), LNGSWRConfig()), LNGSWRConfig())


def test_any_encoder_with_stages_will_do():
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Module()
            self.encoder.stages = nn.ModuleList(
                [nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)]
            )
            self.encoder.forward = lambda x: self.encoder.stages[1](self.encoder.stages[0](x))

        def forward(self, x):
            return self.encoder(x)

    with pytest.raises(
        ValueError, match="attach needs strides, one entry for each of the 2 stages, got None"
    ):
        attach(Tiny(), LNGSWRConfig())
    network = attach(Tiny(), LNGSWRConfig(noise=False), strides=[1, 2], features=[4, 4])
    assert network(image()).shape == (2, 4, 8, 8)
