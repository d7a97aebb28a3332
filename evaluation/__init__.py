"""Robustness evaluation of any nnU-Net v2 model folder, whichever trainer made it.

In two lines, for notebooks; `lngswr evaluate --help` shows the same for shells:

    from evaluation import evaluate
    result = evaluate(model_folder, out, images=..., labels=..., attacks=["pgd_linf"], steps=20)

`evaluate` returns an Evaluation (`folder`, `finished`, `summary`, `rows()`); `estimate` says what
it would take. Settings are the fields of `evaluation.options.Options`. Two or more OUT folders are
compared, paired by case, by `evaluation.compare.compare`.

One step at a time (attacks take batches; `case.batch` is the case as a batch of one):

    import torch
    from evaluation.model.folder import SegmentationModel
    from nnunetv2_lngswr.attacks import ThreatModel, parse_epsilon, run_attack

    model = SegmentationModel.from_folder(model_folder, device="cpu")
    case = model.preprocess(image_files, label_file)
    clean = model.predict(case)  # in the file's geometry, nnU-Net's own arithmetic
    threat = ThreatModel(norm="linf", epsilon=parse_epsilon("8/255"), unit="range")
    result = run_attack(
        "pgd_linf",
        model.sliding_window(),  # the deployed function, with gradients
        case.batch,
        case.target(model.label_space),
        threat.ball(case.bounds),
        generator=torch.Generator().manual_seed(0),
        steps=20,
    )
    attacked = model.predict(case, result.perturbed[0])

On CUDA, x and the target go to the model's device (`case.batch.to(device)`, `target.to(device)`);
the ball follows x, and generators stay on the CPU. Bad input raises UserError, a ValueError that
says what, where and how to mend it.

Where things are, in the order in which data flows:

    robust          evaluate, estimate, and the command; wiring only
    network         evaluate_network: any network in memory, cases as arrays (array_cases)
    options         the settings, validated without torch
    session         what is decided before the first case: model, cases (inputs), runs (protocol)
    model           a model folder: loading, preprocessing, prediction, gradients, writing
    workers         all cases, in one process or several
    run_case        one case through every run: corruptions, attacks, metrics, example
    results_folder  OUT while work goes on: what is finished is not repeated
    report          cases.csv, summary.json, report.md, report.html and the figures
    compare         several OUT folders, with tests (significance)
    card            a checkpoint's OUT folders as a robustness card (cards)
    leaderboard     cards in one table
    score           anybody's segmentations, without a model or an attack (scoring)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.array_cases import ArrayCase
    from evaluation.network import evaluate_network
    from evaluation.robust import estimate, evaluate

__all__ = ["ArrayCase", "estimate", "evaluate", "evaluate_network"]
_MODULES = {"ArrayCase": "array_cases", "evaluate_network": "network"}


def __getattr__(name: str) -> Any:
    # imported when asked for, so that each module of the package can be used without the others
    if name in __all__:
        module = import_module(f"evaluation.{_MODULES.get(name, 'robust')}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
