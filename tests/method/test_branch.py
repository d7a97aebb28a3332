"""What a branch may overwrite: only what nobody else looks at."""

import pytest
import torch

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr
from nnunetv2_lngswr.method.reconstruction import SelectiveWaveletReconstruction
from tests.method.networks import FEATURES, image, make


@pytest.mark.parametrize("kind", ["plain", "resenc"])
def test_inference_writes_over_stage_outputs_that_nobody_looks_at(kind):
    network = attach(make(kind), LNGSWRConfig(reconstruct_bottleneck=True)).eval()
    x = image()
    before = x.clone()
    expected = network(x)[
        0
    ].detach()  # parameters ask for gradients: a graph, so nothing is overwritten
    received = []
    lngswr = find_lngswr(network)
    apply = SelectiveWaveletReconstruction.forward

    def watched(self, x, *args, **options):
        y = apply(self, x, *args, **options)
        received.append(y.data_ptr() == x.data_ptr())
        return y

    seen = []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(SelectiveWaveletReconstruction, "forward", watched)
        assert torch.equal(network(x)[0], expected) and torch.equal(x, before)
        assert received == [False, True, True, True]  # the image is the caller's
        network.encoder.stages[1].register_forward_hook(
            lambda module, args, output: seen.append(output), prepend=True
        )
        received.clear()
        assert torch.equal(network(x)[0], expected) and received == [False, True, False, True]
    assert not torch.equal(seen[0], lngswr.stages[1](seen[0]))


def test_training_writes_over_the_noise_unless_somebody_looks_at_it():
    network = attach(make(), LNGSWRConfig())
    network.train()
    results = []
    for watched in (False, True):
        seen = []

        def watch(module, args, output, seen=seen):
            seen.append((output, output.clone()))

        for _, branch in find_lngswr(network).branches():
            if watched and branch.noise is not None:
                branch.noise.register_forward_hook(watch)
        find_lngswr(network).seed_noise(lambda layer: layer)
        network.zero_grad()
        sum(y.square().mean() for y in network(image())).backward()
        results.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
        assert all(torch.equal(output, copied) for output, copied in seen) and bool(seen) == watched
    assert all(torch.equal(a, b) for a, b in zip(*results))
    assert len(results[0]) == sum(p.requires_grad for p in network.parameters())


def test_noise_that_is_switched_off_leaves_the_stages_output_alone():
    network = attach(make(), LNGSWRConfig())
    network.train()
    for _, branch in find_lngswr(network).branches():
        branch.noise.eval()
    # autograd complains where what it kept was overwritten
    sum(y.square().mean() for y in network(image())).backward()


def _after_stage(x, y, *others):
    """What inference makes of a stage that was given x and returned y; nobody else looks."""
    network = attach(make(), LNGSWRConfig()).eval()
    with torch.no_grad():
        return (
            find_lngswr(network).stages[0].after_stage(network.encoder.stages[0], (x, *others), y)
        )


def _offset(x):
    """A view of all but the first row."""
    return x[:, :, 1:]


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.view_as(x),
        lambda x: x[:1, :, 2:],
        _offset,
        lambda x: _offset(x).transpose(2, 3),
        lambda x: x[:, :, ::2],
        lambda x: x[:, :1].expand(-1, FEATURES[0], -1, -1),
    ],
    ids=("itself", "offset", "rows", "transposed", "every other row", "expanded"),
)
def test_a_stage_that_passes_its_input_on_does_not_overwrite_it(view):
    x = torch.randn(1, FEATURES[0], 10, 8)
    before = x.clone()
    found = _after_stage(x, view(x))
    assert torch.equal(x, before) and torch.equal(found, _after_stage(x, view(x).clone()))
    # nor one that has it as a second input
    _after_stage(torch.randn(1, 1, 4, 4), view(x), x)
    assert torch.equal(x, before)


def test_a_stage_that_returns_a_part_of_what_it_keeps_does_not_overwrite_it():
    kept = torch.randn(2, FEATURES[0], 8, 8)
    before = kept.clone()
    _after_stage(torch.randn(1, 1, 4, 4), kept[1:])
    assert torch.equal(kept, before)
    # what is the stage's alone is still written over, which is what saves memory
    own = torch.randn(1, FEATURES[0], 8, 8)
    assert _after_stage(torch.randn(1, 1, 4, 4), own).data_ptr() == own.data_ptr()
