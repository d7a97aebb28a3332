"""A network that is given: evaluated as by nnU-Net's folder, and nothing of it changes."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from evaluation import ArrayCase, evaluate_network
from evaluation.compare import compare
from evaluation.model.folder import SegmentationModel
from evaluation.model.tiling import flips_of, gaussian_weights, tile
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.tiny import FAST, cases_csv, installed
from tests.model_folders import ball

OPTIONS = {k: v for k, v in FAST.items() if k != "device"}
QUICK = {"attacks": ["noise"], "epsilons": ["8/255"], "corruptions": (), "progress": False}


@pytest.fixture(scope="module")
def model(world):
    return SegmentationModel.from_folder(world[0])


@pytest.fixture(scope="module")
def arrays(world, model):
    """The cases of `world` as the network takes them."""
    _, images, labels = world
    found = []
    for name, files in model.list_images(images).items():
        case = model.preprocess(files, labels / f"{name}.nii.gz")
        found.append(ArrayCase(name, case.x, case.labels, case.spacing))
    return found


class NnUNetLike:
    """nnU-Net's sliding window in plain autograd: what a stranger would write."""

    def __init__(self, model):
        self.patch_size, self.flips = model.patch_size, flips_of(model.mirror_axes)
        self.gaussian = gaussian_weights(model.patch_size, torch.device("cpu"))

    def __call__(self, x, network):
        tiling = tile(x, self.patch_size, tile_step_size=0.5, gaussian=self.gaussian)
        assert tiling.x.shape == x.shape  # it pads without a graph
        total = 0
        for window, flip in itertools.product(tiling.windows, self.flips):
            out = network(x[window][None].flip([a + 1 for a in flip])).flip([a + 1 for a in flip])
            place = torch.zeros(len(x), out.shape[1], *x.shape[2:])
            place[window] = 1
            whole = torch.zeros_like(place)
            whole = whole.masked_scatter(place.bool(), out * self.gaussian)
            total = total + whole
        return total / (tiling.weight_sum * len(self.flips))


def dice(rows):
    keys = ("case", "kind", "attack", "norm", "epsilon_text", "severity", "label")
    return {tuple(r[k] for k in keys): r["dice"] for r in rows}


@pytest.fixture(scope="module")
def by_window(model, arrays, tmp_path_factory):
    out = tmp_path_factory.mktemp("window") / "out"
    return evaluate_network(model.sliding_window(), arrays, out, labels={"ball": 1}, **OPTIONS)


def test_nnunets_own_sliding_window_gets_what_the_folder_gets(by_window, finished):
    found, expected = dice(by_window.rows()), dice(finished.rows())
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=0 if key[1] == "clean" else 5e-3), key


def test_a_strangers_inference_gets_what_the_folder_gets(model, arrays, finished, tmp_path):
    result = evaluate_network(
        model.networks[0],
        arrays,
        tmp_path / "out",
        labels={"background": 0, "ball": 1},
        inference=NnUNetLike(model),
        **OPTIONS,
    )
    found, expected = dice(result.rows()), dice(finished.rows())
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=0 if key[1] == "clean" else 5e-3), key
    assert "NnUNetLike" in (result.folder / "report.md").read_text()


def test_it_is_compared_with_the_folder_which_is_said(by_window, finished, tmp_path):
    compare([finished.folder, by_window.folder], tmp_path / "comparison")
    said = (tmp_path / "comparison" / "compare.md").read_text()
    assert "were given as arrays, and are paired with files by name" in said


class Restless(nn.Module):
    """Batch norm and dropout, which training mode would move and eval mode must not."""

    def __init__(self, outputs=2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, outputs, 1)
        )
        self.layers[0].bias.requires_grad_(False)

    def forward(self, x):
        return self.layers(x)


def image_case(name="a", shape=(20, 24), seed=0):
    image, label = ball(shape, seed=seed)
    return name, torch.from_numpy(image)[None] / 50 - 2, label, (1.0, 1.0)


@pytest.fixture
def restless():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Restless()


def test_nothing_of_what_is_given_changes(restless, tmp_path):
    def state():
        return (
            {k: v.clone() for k, v in restless.state_dict().items()},
            [m.training for m in restless.modules()],
            [(p.requires_grad, p.grad) for p in restless.parameters()],
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            random.getstate(),
        )

    restless.train()
    restless.layers[2].eval()
    case = image_case()
    image, label = case[1].clone(), case[2].copy()
    before = state()
    options = {**QUICK, "attacks": ["pgd_linf", "noise"], "corruptions": ["gaussian_noise"]}
    result = evaluate_network(
        restless, [case], tmp_path / "out", labels={"ball": 1}, steps=2, **options
    )
    after = state()
    for name, value in before[0].items():
        assert torch.equal(after[0][name], value), name
    assert after[1:] == before[1:]
    assert torch.equal(case[1], image) and (case[2] == label).all()
    # in eval mode throughout: the same again
    again = evaluate_network(
        restless, [case], tmp_path / "again", labels={"ball": 1}, steps=2, **options
    )
    assert cases_csv(again.folder) == cases_csv(result.folder)


def hidden(x, network):
    return network(x.detach())


def without_grad(x, network):
    with torch.no_grad():
        return network(x)


def without_autograd(x, network):
    with torch.inference_mode():
        return network(x)


def by_numpy(x, network):
    return torch.from_numpy(network(x).detach().numpy())


@pytest.mark.parametrize("inference", [hidden, without_grad, without_autograd, by_numpy])
@pytest.mark.parametrize("module", [True, False], ids=["module", "callable"])
def test_a_network_that_detaches_is_an_error_that_says_so(inference, module, restless, tmp_path):
    restless.eval()
    given = (restless, inference) if module else (lambda x: inference(x, restless), None)

    def run(**options):
        network, how = given
        return evaluate_network(
            network, [image_case()], tmp_path / "out", labels={"ball": 1}, inference=how, **options
        )

    with pytest.raises(UserError, match="gradients do not reach it: is there a no_grad"):
        run(**QUICK | {"attacks": ["pgd_linf"]})
    assert not (tmp_path / "out").exists()
    assert run(**QUICK).finished  # the control takes no gradients


def test_a_killed_call_goes_on_unless_the_network_is_another(restless, tmp_path):
    calls, cases = [], [image_case(name, seed=i) for i, name in enumerate("ab")]

    def counted(x, network):
        calls.append(len(x))
        return network(x)

    def run(network, inference=counted, of=cases, **options):
        out, labels = tmp_path / "out", {"ball": 1}
        return evaluate_network(network, of, out, labels=labels, inference=inference, **QUICK)

    whole = cases_csv(run(restless).folder)
    first = len(calls)
    (tmp_path / "out/parts/b.json").unlink()
    del calls[:]
    assert cases_csv(run(restless).folder) == whole
    assert 1 < len(calls) < first
    other = image_case("b", seed=5)
    del calls[:]
    assert cases_csv(run(restless, of=[cases[0], other]).folder) != whole
    assert 1 < len(calls) < first
    with torch.no_grad():
        restless.layers[3].bias[0] += 1
    with pytest.raises(UserError, match="results of other settings .*checkpoint_sha256"):
        run(restless)
    restless.eval()
    (tmp_path / "out").rename(tmp_path / "before")
    run(lambda x: restless(x), None)
    with torch.no_grad():
        restless.layers[3].bias[0] += 1
    with pytest.raises(UserError, match="results of other settings .*first_case_logits"):
        run(lambda x: restless(x), None)


def test_one_channel_is_a_sigmoid(restless, tmp_path):
    def difference(x):
        z = restless(x)
        return z[:, 1:] - z[:, :1]

    restless.eval()
    options = QUICK | {"attacks": ["pgd_linf"], "steps": 2}
    found = [
        dice(
            evaluate_network(f, [image_case()], tmp_path / n, labels={"ball": 1}, **options).rows()
        )
        for n, f in (("one", difference), ("two", restless))
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_regions_have_a_channel_each(tmp_path):
    label = np.zeros((16, 16), np.int64)
    label[4:12, 4:12], label[6:10, 6:10] = 1, 2
    image = torch.from_numpy(label)[None].float()
    bright = {"whole": [1, 2], "core": 2}

    def network(x):  # right but for a row of the core
        shifted = torch.roll(x, 1, 2)
        return torch.cat([x - 0.5, shifted - 1.5], 1)

    result = evaluate_network(
        network,
        [("a", image, label)],
        tmp_path / "out",
        labels=bright,
        regions_class_order=[1, 2],
        **QUICK,
    )
    found = {r["label_name"]: r["dice"] for r in result.rows() if r["kind"] == "clean"}
    assert found == {"whole": 1.0, "core": 0.75, "foreground mean": 0.875}


def test_volumes_and_modalities(tmp_path):
    image, label = ball((8, 10, 12), seed=0)
    case = ArrayCase("a", image[None], label[None], (2.0, 1.0, 1.0))

    def network(x):
        return torch.cat([100 - x, x - 100], 1)

    def corruptions(names):
        options = QUICK | {"corruptions": ["all"]}
        out = tmp_path / "-".join(names or ["none"])
        result = evaluate_network(
            network, [case], out, labels={"ball": 1}, channel_names=names, **options
        )
        assert result.summary["model"]["configuration"] == "3d"
        return set(result.summary["shift_strengths"]), result.summary["shifts_left_out"]

    of_mr, left_out = corruptions(["T1w"])
    torchio = {"mr_motion", "mr_ghosting"}
    assert set(left_out) - torchio == {"jpeg", "hu_offset", "hu_scale"} and "speckle" in of_mr
    assert {"gibbs_ringing", "kspace_spike"} | torchio - set(left_out) <= of_mr
    assert installed("torchio") == (not torchio & set(left_out))
    of_ct, left_out = corruptions(["CT"])
    assert set(left_out) == {"jpeg", "hu_offset", "hu_scale", "speckle", "rician_noise"}
    assert not of_ct & {"gibbs_ringing", "kspace_spike", *torchio, *left_out}


def nothing(x):
    return torch.zeros(len(x), 2, *x.shape[2:]) * x.sum()


BAD = [
    ({"cases": []}, "at least one case"),
    ({"cases": [("a", torch.zeros(1, 4, 4))]}, r"must be an ArrayCase or \(name, image"),
    ({"cases": [("a/b", *image_case()[1:])]}, "must be a text without slashes"),
    ({"cases": [image_case(), image_case()]}, "case a is there twice"),
    ({"cases": [("a", torch.zeros(4, 4), torch.zeros(4, 4))]}, "two or three spatial axes"),
    ({"cases": [("a", torch.zeros(1, 4, 4), torch.zeros(4, 5))]}, "the image's spatial shape"),
    ({"cases": [("a", "no", torch.zeros(4, 4))]}, "image must be a tensor or an array, got 'no'"),
    ({"cases": [("a", torch.full((1, 4, 4), torch.nan), torch.zeros(4, 4))]}, "NaN or infinite"),
    ({"cases": [("a", np.full((1, 4, 4), 1e300), torch.zeros(4, 4))]}, "NaN or infinite"),
    ({"cases": [("a", torch.zeros(1, 4, 4), torch.full((4, 4), 0.5))]}, "whole numbers"),
    ({"cases": [("a", torch.zeros(1, 4, 4), torch.zeros(4, 4), (1, 0))]}, "2 numbers > 0"),
    ({"cases": [("a", torch.zeros(1, 4, 4), torch.full((4, 4), 7))]}, r"label holds \[7\]"),
    ({"labels": {"ball": 2}}, "must be 0, 1, 2, ... without a gap"),
    ({"labels": {"ball": "x"}}, "must be a whole number"),
    ({"labels": ["ball"]}, "must be like"),
    ({"labels": {"all": [1, 2], "core": 2}}, "regions_class_order"),
    ({"network": lambda x: [nothing(x)]}, "returned a list, and must return logits"),
    ({"network": lambda x: nothing(x)[:, :, 1:]}, r"must return logits \(1, 2, 20, 24\)"),
    ({"network": lambda x: nothing(x).argmax(1, keepdim=True)}, "got int64 of shape"),
    ({"network": lambda x: nothing(x).softmax(1)}, "returned probabilities"),
    ({"network": lambda x: (3 * x[:, :1]).sigmoid()}, "returned probabilities"),
    ({"network": lambda x: nothing(x) * torch.nan}, "NaN or infinite logits"),
    ({"workers": 2}, "workers cannot be set for a network that is given"),
    ({"tile_step_size": 0.3, "folds": [0]}, "folds, tile_step_size cannot be set"),
    ({"attacks": ["ssah"]}, "attack ssah needs a network with an .encoder"),
    ({"attacks": ["pdg"]}, "unknown attack 'pdg'"),
    ({"corruptions": ["gibbs_ringing"]}, "needs MR"),
    ({"device": "meta"}, "device must be cpu"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[m[:40] for _, m in BAD])
def test_bad_input_is_one_line_before_anything_is_written(change, message, tmp_path):
    call = {"network": nothing, "cases": [image_case()], "labels": {"ball": 1}, **QUICK, **change}
    with pytest.raises(UserError, match=message) as error:
        evaluate_network(output_folder=tmp_path / "out", **call)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_intervals_are_over_the_groups_that_are_given(arrays, tmp_path):
    names = [case.identifier for case in arrays]
    of = {name: "ab"[i > 0] for i, name in enumerate(names)}
    network = nn.Conv3d(1, 2, 1)
    found = evaluate_network(
        network, arrays, tmp_path / "out", labels={"ball": 1}, groups=of, **QUICK
    )
    assert found.summary["groups"] == {"found": "as given", "count": 2, "of": of}
    with pytest.raises(UserError, match="groups have nothing for"):
        evaluate_network(
            network, arrays, tmp_path / "b", labels={"ball": 1}, groups={"x": "y"}, **QUICK
        )
