"""What MR's own corruptions cost a model at a grid of strengths, beside the other corruptions.

    python -m benchmarks.mr_calibration -m MODEL_FOLDER [-f 0] [--max-cases 12] -o FILE.json

The model is a vanilla one of an MR data set; its fold's validation cases come from nnUNet_raw and
nnUNet_preprocessed, mirroring is off. The target is the median drop of Dice over the corruptions
that are not MR's own, at severity 3; `strength_at_target` is where a corruption's drop crosses it,
between two points. Measured are the strengths of evaluation/corruption_table.py, whose third is
that one, rounded, and the points of GRID around them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.saving import command_line, first_paragraph, write_json
from evaluation import inputs, metrics
from evaluation.corruption_table import CORRUPTIONS, inapplicable
from evaluation.corruptions import apply_strength
from evaluation.model.case import Case
from evaluation.model.folder import SegmentationModel
from evaluation.protocol import CORRUPTION
from nnunetv2_lngswr.experiments.overhead import conditions
from nnunetv2_lngswr.utils.seeds import run_seed

GRID: dict[str, tuple[float, ...]] = {
    "gibbs_ringing": (0.5, 0.65, 0.9),
    "kspace_spike": (0.02, 0.2),
    "mr_motion": (0.25, 4.0),
    "mr_ghosting": (0.2, 0.5),
}
SEVERITY = 3
Setting = tuple[str, float]
"""A corruption and its strength."""


def settings_of(model: SegmentationModel) -> tuple[list[Setting], list[Setting]]:
    """(the corruptions that say where the target is, MR's own), each once."""
    flat = len(model.patch_size) == 2
    left_out = inapplicable(ct=False, two_dimensional=flat)
    others = [
        (name, c.strengths[SEVERITY - 1])
        for name, c in CORRUPTIONS.items()
        if c.needs != "mr" and name not in left_out
    ]
    own = [(n, s) for n, grid in GRID.items() for s in sorted({*grid, *CORRUPTIONS[n].strengths})]
    return others, own


def measure(
    model: SegmentationModel,
    cases: Sequence[inputs.CaseFiles],
    settings: Sequence[Setting],
    *,
    seed: int,
) -> dict[Setting | None, np.ndarray]:
    """Foreground Dice of each case, (cases,); None is the clean one."""
    found: dict[Setting | None, list[float]] = {None: [], **{s: [] for s in settings}}
    with tqdm(total=len(cases) * len(found), unit="prediction") as bar:
        for files in cases:
            case = model.preprocess(files.images, files.label, identifier=files.identifier)
            for setting, values in found.items():
                x = case.x if setting is None else _corrupted(case, setting, seed)
                values.append(_dice(model, case, x))
                bar.update()
    return {setting: np.array(values) for setting, values in found.items()}


def _corrupted(case: Case, setting: Setting, seed: int) -> torch.Tensor:
    """With the seed that an evaluation takes."""
    name, strength = setting
    drawn = run_seed(seed, case.identifier, CORRUPTION, name, "")
    return apply_strength(
        name, case.x, strength=strength, seed=drawn, image_channels=case.image_channels
    )


def _dice(model: SegmentationModel, case: Case, x: torch.Tensor) -> float:
    assert case.ground_truth is not None
    labels = model.label_manager.foreground_labels
    scores = metrics.score(
        model.predict(case, x), case.ground_truth, spacing=case.spacing, labels=labels
    )
    return metrics.foreground_mean(scores).dice


def strength_at(target: float, drops: Mapping[float, float]) -> float | None:
    """Where the drop first crosses the target, between two strengths; None where it does not."""
    points = [(0.0, 0.0), *sorted(drops.items())]
    for (low, before), (high, after) in zip(points, points[1:]):
        if before < target <= after:
            return low + (high - low) * (target - before) / (after - before)
    return None


def record(found: Mapping[Setting | None, np.ndarray], others: Sequence[Setting]) -> dict[str, Any]:
    """The figures, drops of Dice as fractions."""
    clean = float(found[None].mean())
    drop = {s: clean - float(values.mean()) for s, values in found.items() if s is not None}
    reference = {name: drop[name, strength] for name, strength in others}
    target = median(reference.values())
    own = {}
    for name in GRID:
        drops = {strength: d for (n, strength), d in drop.items() if n == name}
        own[name] = {
            "unit": CORRUPTIONS[name].unit,
            "strength_at_target": strength_at(target, drops),
            "drop_by_severity": [drops[s] for s in CORRUPTIONS[name].strengths],
            "drop_by_strength": {f"{s:g}": d for s, d in sorted(drops.items())},
        }
    return {
        "clean_dice": clean,
        "target_drop": target,
        "drop_of_others_at_severity_3": dict(sorted(reference.items(), key=lambda r: r[1])),
        "own": own,
    }


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    torch.set_num_threads(args.threads)
    model = SegmentationModel.from_folder(args.model, folds=[args.fold], use_mirroring=False)
    cases = inputs.choose(
        inputs.from_cross_validation(
            dataset=model.plans.dataset_name,
            folds=[args.fold],
            ending=model.file_ending,
            channels=model.image_channels,
            previous_stage=None,
        ),
        args.max_cases,
        seed=args.seed,
    )
    others, own = settings_of(model)
    found = measure(model, cases, [*others, *own], seed=args.seed)
    result = record(found, others)
    for line in _lines(result):
        print(line)
    described = {k: v for k, v in model.describe().items() if k != "folder"}
    about = {
        **conditions(command_line("mr_calibration", argv), "cpu", args.threads),
        "model": described,
        "cases": [c.identifier for c in cases],
        "seed": args.seed,
    }
    write_json(args.o, {**about, **result})


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"clean {result['clean_dice']:.3f}, target drop {result['target_drop']:.3f}"
    for name, value in result["drop_of_others_at_severity_3"].items():
        yield f"  {name} {value:.3f}"
    for name, of in result["own"].items():
        yield f"{name}: at the target {of['strength_at_target']}, {of['unit']}"
        yield f"  {', '.join(f'{k}: {v:.3f}' for k, v in of['drop_by_strength'].items())}"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__))
    add = parser.add_argument
    add("-m", dest="model", type=Path, required=True, metavar="MODEL_FOLDER")
    add("-f", dest="fold", type=int, default=0, metavar="FOLD", help="default: %(default)s")
    add("--max-cases", type=int, default=12, metavar="N", help="default: %(default)s")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--threads", type=int, default=1, help="default: %(default)s")
    add("-o", type=Path, required=True, metavar="FILE.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
