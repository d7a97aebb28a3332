"""The picture of what an attack did: which cases it shows, and that it leaves pyplot alone."""

import numpy as np
from PIL import Image

from evaluation.report import examples


def example(case, after, before=0.9, value=1):
    reference = np.zeros((20, 30), np.int16)
    reference[5:12, 8:20] = value
    image = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    arrays = {
        "image": image,
        "perturbation": 0.01 * image,
        "reference": reference,
        "before": reference,
        "after": np.roll(reference, 4, 1),
    }
    return {
        **arrays,
        "range": 6.0,
        "names": {"1": "nodule"},
        "case": case,
        "attack": "pgd_linf",
        "norm": "linf",
        "epsilon_text": "4/255",
        "dice_before": before,
        "dice_after": after,
    }


def test_examples_are_the_worst_and_the_median():
    shown = [
        example(str(i), after, before)
        for i, (after, before) in enumerate(
            [(0.5, 0.9), (0.0, 0.7), (0.0, 0.9), (0.8, 0.9), (float("nan"), float("nan"))]
        )
    ]
    assert examples.choose_examples(shown) == [("worst case", 2), ("median case", 0)]
    assert examples.choose_examples(shown[:1]) == [("the only case", 0)]


def test_examples_are_drawn_without_touching_pyplot(tmp_path):
    import sys

    before = set(sys.modules)
    examples.draw_examples(
        tmp_path / "e.png",
        [("worst case", example("a", 0.1)), ("median case", example("b", 0.4, value=2))],
    )
    assert Image.open(tmp_path / "e.png").size[0] > 2000
    assert "matplotlib.pyplot" not in set(sys.modules) - before


def test_a_perturbation_of_a_constant_channel_is_drawn_in_its_own_units(tmp_path):
    constant = example("a", 0.1) | {"range": 0.0}
    with np.errstate(all="raise"):
        examples.draw_examples(tmp_path / "constant.png", [("the only case", constant)])
    examples.draw_examples(tmp_path / "one.png", [("the only case", constant | {"range": 1.0})])
    drawn = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("constant", "one")]
    assert np.array_equal(*drawn)
