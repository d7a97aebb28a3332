"""Tables of corruptions and of calibration: what they leave out, and whose figures they are."""

import json

from benchmarks import evidence_tables
from tests.benchmarks.evidence import result


def compared(dice):
    """A compare.json of {trainer: (clean, noise, contrast, mean, mean without contrast)}."""
    kinds = (
        ("clean", "clean"),
        ("shift_mean", "gaussian_noise"),
        ("shift_mean", "contrast"),
        ("shifts_mean", "all shifts"),
        ("not_affine_mean", "shifts but affine ones"),
    )
    rows = []
    for trainer, of in dice.items():
        for (kind, attack), value in zip(kinds, of):
            minus = None if trainer == "nnUNetTrainerVanilla" else 0.05
            row = result(trainer, kind, "", value, minus) | {"attack": attack}
            reduction = None if minus is None else 0.25
            for of_what in ("", "_again"):
                row |= {f"reduction{of_what}": reduction}
                row |= {f"reduction{of_what}_{e}": reduction for e in ("low", "high")}
            rows.append(row | {"ece": value / 10, "ece_low": 0.01, "ece_high": 0.09})
    (evidence_tables.RESULTS / "compare.json").write_text(json.dumps({"results": rows}))


def test_corruptions_are_read_without_those_that_change_nothing(results):
    trainers = ("nnUNetTrainerVanilla", "nnUNetTrainerVanillaDA5")
    compared(dict(zip(trainers, [(0.8, 0.5, 0.8, 0.65, 0.5), (0.81, 0.6, 0.8, 0.7, 0.6)])))
    vanilla, da5 = evidence_tables.table("corruptions compare.json").splitlines()[2:]
    assert vanilla.startswith(
        "| vanilla | 80.0 | 65.0 |  |  | 50.0 | 0.080 [0.010, 0.090] | 0.065 "
    )
    minus = "5.0 [-5.0, 15.0]; [-5.0, 15.0]"
    assert da5.startswith(
        f"| strong augmentation (DA5) | 81.0 | 70.0 | {minus} | 25% [25, 25]; [25, 25] | 60.0 "
    )
    head, _, noise, contrast = evidence_tables.table(
        "each_corruption compare.json vanilla DA5"
    ).splitlines()
    assert head.endswith("| vanilla | strong augmentation (DA5): minus |")
    assert noise == f"| `gaussian_noise` | 50.0 | {minus} |" and "`contrast` | 80.0" in contrast


def test_calibration_is_clean_and_under_the_suite(results):
    path = evidence_tables.RESULTS / "x.json"
    record = json.loads(path.read_text())
    for n, row in enumerate(record["results"]):
        row |= {"ece": n / 100, "ece_low": 0.0, "ece_high": 0.5}
    path.write_text(json.dumps(record))
    head, _, vanilla, at = evidence_tables.table("calibration x.json").splitlines()
    # the first row of the file is of an attack that is not the suite
    assert vanilla == (
        "| vanilla | 0.010 [0.000, 0.500] | 0.020 [0.000, 0.500] | 0.030 [0.000, 0.500] |"
    )
    assert at.startswith("| AT from the first step | 0.040 ")
