"""Networks and arrays in memory: what is taken, and what tells two inferences apart."""

from functools import partial

import numpy as np
import pytest
import torch

from evaluation import ArrayCase, evaluate_network
from evaluation.array_cases import as_cases
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.test_network import QUICK, Restless, image_case
from tests.model_folders import ball


def test_arrays_of_any_kind_are_taken():
    image, label = np.random.default_rng(0).normal(size=(1, 8, 6)), np.eye(8, 6)
    whole = as_cases([("a", image, label)])[0].hashes
    for kind in (np.uint8, np.uint16, np.uint32, np.int16, ">i2", bool):
        flipped = image[:, ::-1].copy()[:, ::-1]
        assert as_cases([("a", flipped, label.astype(kind))])[0].hashes == whole
    grey = np.arange(48).reshape(1, 8, 6)
    whole = as_cases([("a", grey.astype(float), label)])[0].hashes
    for kind in (np.uint8, np.uint16, np.uint32, ">i2", ">f4"):
        assert as_cases([("a", grey.astype(kind), label)])[0].hashes == whole
    for odd in (label + 0.5, label + 0.5j):
        with pytest.raises(UserError, match="label must hold whole numbers"):
            as_cases([("a", image, odd)])
    with pytest.raises(UserError, match=r"spacing must be 2 numbers > 0 \(mm\), got 1.0"):
        as_cases([("a", image, label, 1.0)])


class Window:
    def __init__(self, overlap):
        self.overlap = overlap

    def __call__(self, x, network, **more):
        return network(x)

    predict = __call__


def with_itself(window):
    window.own = window
    return window


@pytest.mark.parametrize(
    "made",
    [
        lambda overlap: partial(Window(0.1), overlap=overlap),
        lambda overlap: partial(Window(overlap)),
        lambda overlap: Window(overlap).predict,
        lambda overlap: Window(np.float32(overlap)),
        lambda overlap: Window({"of": np.array([overlap, 0.5])}),
        lambda overlap: Window([0.5, np.full(1000, overlap)]),
        lambda overlap: with_itself(Window(overlap)),
    ],
)
def test_settings_of_an_inference_tell_evaluations_apart(tmp_path, made):
    network = Restless()

    def run(overlap):
        out, labels = tmp_path / "out", {"ball": 1}
        how = made(overlap)
        return evaluate_network(network, [image_case()], out, labels=labels, inference=how, **QUICK)

    assert "0.5" in (run(0.5).folder / "report.md").read_text()
    with pytest.raises(UserError, match="results of other settings"):
        run(0.25)


def test_a_network_of_ct_and_another_modality_is_not_one_of_ct(tmp_path):
    image, label = ball((8, 10, 12), seed=0)
    case = ArrayCase("a", np.stack([image, image]), label[None], (2.0, 1.0, 1.0))

    def network(x):
        return torch.cat([100 - x[:, :1], x[:, :1] - 100], 1)

    options = QUICK | {"corruptions": ["all"]}
    names = {"labels": {"ball": 1}, "channel_names": ["PET", "CT"]}
    found = evaluate_network(network, [case], tmp_path / "out", **names, **options).summary
    assert {"rician_noise", "speckle"} <= set(found["shift_strengths"])


def test_logits_that_are_not_finite_are_named_with_their_case(tmp_path):
    """The second case is constant, which this network divides by the deviation of."""
    fine = image_case()
    flat = ("flat", torch.ones_like(fine[1]), fine[2], (1.0, 1.0))

    def network(x):
        z = (x - x.mean()) / x.std()
        return torch.cat([-z, z], 1)

    with pytest.raises(UserError, match="case flat .*: .* NaN or infinite logits"):
        evaluate_network(network, [fine, flat], tmp_path / "out", labels={"ball": 1}, **QUICK)
