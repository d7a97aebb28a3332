"""The plans' "lngswr" entry: keys and values that no trainer takes."""

import json

import pytest

from nnunetv2_lngswr.training.settings import check_entry
from nnunetv2_lngswr.utils.command_line import run_main
from tests.bad_inputs.harness import bad, rows


def train(argv: list[str]) -> int:
    """A trainer that reads its settings and does nothing else."""

    def read() -> int:
        check_entry(json.loads(argv[0]))
        return 0

    return run_main("nnUNetv2_train", read)


def entry(name: str, content: object, *says: str):
    return bad(name, [json.dumps(content)], "plans", "lngswr", *says)


def value(key: str, given: object, *says: str):
    shown = repr(given)
    name = f"{key} {given!r}"[:60]
    return entry(name, {key: given}, key, shown[:12].strip("[]"), *says)


def attack(key: str, given: object, *says: str, **more):
    name = f"adversarial: {key} {given!r}"[:60]
    content = {"adversarial": {key: given, **more}}
    return entry(name, content, "adversarial", key, repr(given)[:12].strip("[]"), *says)


NAN, INFINITE = float("nan"), float("inf")

ENTRIES = [
    entry("entry is a list", [1], "object"),
    entry("entry is null", None, "object"),
    entry("entry is a text", "LNG", "object"),
    entry("entry is a number", 3, "object"),
    entry("unknown key", {"gain": 1}, "gain", "gains"),
    entry("key of nothing near", {"xyzzy": 1}, "xyzzy", "known keys"),
    entry("key in capitals", {"Gains": "prior"}, "Gains", "gains"),
    entry("key is empty", {"": 1}, '""'),
    entry("old and new key", {"learned": True, "learn_gates": False}, "learned", "learn_gates"),
    entry("adversarial is a list", {"adversarial": [1]}, "adversarial", "object"),
    entry("adversarial is null", {"adversarial": None}, "adversarial", "object"),
    entry("adversarial is true", {"adversarial": True}, "adversarial", "object"),
    entry(
        "consistency with free",
        {"adversarial": {"consistency": 6, "scheme": "free"}},
        "consistency",
        "free",
        "fgsm_rs",
    ),
    entry(
        "a last phase without a whole epoch",
        {"num_epochs": 4, "adversarial": {"start": 0.8}},
        "adversarial",
        "0.8 of 4",
        "train for more epochs, or start earlier",
    ),
    entry("unknown adversarial key", {"adversarial": {"eps": 1}}, "eps", "epsilon"),
]

METHOD = [
    value("noise", 1, "true or false"),
    value("noise", "yes"),
    value("noise", None),
    value("noise_sigma_input", -0.1, ">= 0"),
    value("noise_sigma_input", "1"),
    value("noise_sigma_input", True),
    value("noise_sigma_input", None),
    value("noise_sigma_input", [1]),
    value("noise_sigma_input", INFINITE),
    value("noise_sigma_input", NAN),
    value("noise_sigma_stages", INFINITE),
    value("noise_sigma_stages", NAN),
    value("noise_spectrum", "pink", "white"),
    value("noise_spectrum", 3),
    value("noise_spectrum", []),
    value("noise_max_stride", 24, "power of two"),
    value("noise_max_stride", 0),
    value("noise_max_stride", -8),
    value("noise_max_stride", "32"),
    value("noise_max_stride", 16.0),
    value("noise_max_stride", True),
    value("noise_max_stride", []),
    value("noise_random_grid", 1, "true or false"),
    value("noise_random_grid", None),
    value("noise_ramp_up", 1.5),
    value("noise_ramp_up", NAN),
    value("reconstruct_from_stage", -1),
    value("reconstruct_from_stage", 0.5),
    value("reconstruct_from_stage", True),
    value("wavelet", "haarr"),
    value("wavelet", 2),
    value("wavelet", None),
    value("wavelet", []),
    value("gains", "wiener", "prior"),
    value("gains", []),
    value("gains", [0.5]),
    value("gains", [0.5, 2]),
    value("gains", [0.5, NAN]),
    value("gains", ["a", "b"]),
    value("gains", 0.5),
    value("gains", None),
    value("gate_init", -1),
    value("gate_init", "half"),
    value("fusion", "add", "mix"),
    value("fusion", {}),
    value("prior_sigma", 0),
    value("prior_sigma", INFINITE),
    value("prior_sigma", NAN),
    value("prior_momentum", 0),
    value("prior_momentum", 1.1),
]

RUN = [
    value("num_epochs", 0, ">= 1"),
    value("num_epochs", -5),
    value("num_epochs", 2.5),
    value("num_epochs", "ten"),
    value("num_epochs", True),
    value("num_iterations_per_epoch", 0),
    value("num_val_iterations_per_epoch", []),
    value("seed", -1),
    value("seed", 1.5),
    value("seed", "x"),
    value("warm_start", 3),
    value("warm_start", ""),
    value("warm_start", ["a.pth"]),
]

ADVERSARIAL = [
    attack("scheme", "pdg", "pgd"),
    attack("scheme", None),
    attack("scheme", []),
    attack("norm", "l1", "linf"),
    attack("epsilon", "eight"),
    attack("epsilon", 8),
    attack("epsilon", -0.01),
    attack("epsilon", NAN),
    attack("epsilon", INFINITE),
    attack("epsilon", "1e400"),
    attack("epsilon", "4/0"),
    attack("epsilon", "1/255/2"),
    attack("epsilon", None),
    attack("epsilon", []),
    attack("epsilon_range", "image", "patch"),
    attack("steps", 0, scheme="pgd"),
    attack("steps", 3, scheme="free"),
    attack("steps", 2.5, scheme="pgd"),
    attack("replays", 4, scheme="pgd"),
    attack("rolling", 1, "true or false", scheme="free"),
    attack("rolling", "yes", scheme="free"),
    attack("rolling", True, "free", "pgd", scheme="pgd"),
    attack("replays", 1, "rolling", "2 or more", scheme="free", rolling=True),
    attack("step_size", 0),
    attack("step_size", INFINITE),
    attack("loss", "dicee"),
    attack("loss", 1),
    attack("start", 1, "[0, 1)"),
    attack("start", 1.5),
    attack("start", -0.1),
    attack("start", NAN),
    attack("start", "late"),
    attack("start", True),
    attack("restart_lr", 0, "> 0"),
    attack("restart_lr", INFINITE),
    attack("restart_lr", None),
    attack("restart_ramp_up", 1.5, "[0, 1]"),
    attack("restart_ramp_up", NAN),
    attack("late_noise", 2),
    attack("weight_average", 1.01, "[0, 1]"),
    attack("weight_average", NAN),
    attack("ramp_up", 2),
    attack("clean_share", -0.5),
    attack("robust_weight", "half"),
    attack("consistency", -1),
    attack("consistency", INFINITE),
    attack("replays", 0, scheme="free"),
    attack("val_batches", 0),
    attack("val_steps", 1.5),
    attack("fallback", "no"),
    attack("overfitting_margin", NAN),
]

TABLE = [*ENTRIES, *METHOD, *RUN, *ADVERSARIAL]


@pytest.mark.parametrize("row", rows(TABLE))
def test_is_refused_in_one_line(row, refuses):
    refuses(train, row, "nothing")
