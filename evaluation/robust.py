"""The robustness evaluation of an nnU-Net v2 model folder: `evaluate(...)` for notebooks, `python -m evaluation.robust` for shells.

    python -m evaluation.robust -m MODEL_FOLDER -i IMAGES -l LABELS -o OUT

Every case goes through every run (clean, attacks at every budget, shifts at every severity); OUT gets cases.csv, summary.json, report.md,
curves.png and examples.png. Without -i and -l, each fold's validation cases are evaluated by the model that has not seen them.

This module only wires: protocol.py says what is run, inputs.py on which cases, run_case.py runs one case, results_folder.py keeps finished cases,
report.py and figures.py write. Nothing here imports torch before it is needed, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation import protocol
from evaluation.protocol import EvaluationRun, Options
from nnunetv2_lngswr.utils.errors import UserError

if TYPE_CHECKING:
    from evaluation.inputs import CaseFiles
    from evaluation.model.folder import SegmentationModel
    from evaluation.results_folder import ResultsFolder

PACKAGES = (
    "nnunetv2_lngswr",
    "nnunetv2",
    "torch",
    "numpy",
    "scipy",
    "monai",
    "batchgeneratorsv2",
    "torchattacks",
)
DEFAULTS = Options()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` returns. `folder`: OUT. `finished`: whether every case is done and the report written; a part that ends before the others
    leaves it False. `summary`: as summary.json, empty until finished."""

    folder: Path
    finished: bool
    summary: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """cases.csv, numbers as numbers."""
        from evaluation.report.cases_table import read_cases

        return read_cases(self.folder / "cases.csv")


def evaluate(
    model_folder: str | Path,
    output_folder: str | Path,
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    previous_stage: str | Path | None = None,
    num_parts: int | None = None,
    part_id: int | None = None,
    workers: int | None = 1,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Evaluate a model folder; `options` are the fields of protocol.Options (attacks, epsilons, steps, shifts, ...).

    `images`, `labels`, `previous_stage`: folders in nnU-Net's format; without the first two, the validation cases of each fold. `num_parts`, `part_id`:
    evaluate only cases part_id, part_id + num_parts, ...; by default RANK and WORLD_SIZE as torchrun sets them. The part that ends last
    writes the report. `workers`: processes among which this call shares its cases and its CPU threads; None, the command's default, takes one per core for
    2D configurations on a CPU, whose convolutions gain nothing from threads, where the work is worth their start. Finished cases in OUT are not repeated, and on a CPU with the same number of threads and workers cases.csv gets the same bytes
    as without an interruption. ValueError for bad input, before anything is written; OSError for a
    disk that is full, after which finished cases are kept.
    """
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise UserError(f"workers must be an integer >= 1, got {workers}")
    given = Options(**options)
    inputs = {"images": images, "labels": labels, "previous_stage": previous_stage}
    work = _prepare(model_folder, **inputs, num_parts=num_parts, part_id=part_id, options=given)
    from evaluation.results_folder import ResultsFolder

    out = ResultsFolder(output_folder)
    out.check(work.settings, overwrite=overwrite)
    todo = (
        [c for c in work.share if not out.finished(c)]
        if out.holds(work.settings)
        else list(work.share)
    )
    _check_inputs(work, todo, progress)
    out.open(work.settings)
    workers = _workers(workers, work, todo)
    if workers > 1:
        call = {
            "model_folder": str(model_folder),
            "output_folder": str(output_folder),
            **{k: v and str(Path(v)) for k, v in inputs.items()},
        }
        _run_workers(
            workers,
            call | {"options": given.record() | _exact_budgets(given)},
            work,
            todo,
            out,
            progress,
        )
    else:
        _run(work, todo, out, progress)
    if not all(out.finished(c) for c in work.cases):
        return Evaluation(folder=out.path, finished=False, summary={})
    return Evaluation(folder=out.path, finished=True, summary=_merge(work, out))


def estimate(
    model_folder: str | Path,
    output_folder: str | Path | None = None,
    *,
    overwrite: bool = False,
    **arguments: Any,
) -> dict[str, Any]:
    """What `evaluate` with these arguments would do, and a guess at time and memory, from one prediction and one gradient on the first case:
    {'cases', 'share', 'finished', 'runs', 'shifts_left_out', 'attacks_left_out', 'prediction_seconds', 'gradient_seconds', 'seconds_per_case', 'seconds', 'peak_memory_bytes'}.
    Cases of another size take another time."""
    places = {
        k: arguments.pop(k, None)
        for k in ("images", "labels", "previous_stage", "num_parts", "part_id")
    }
    work = _prepare(model_folder, **places, options=Options(**arguments))
    finished = []
    if output_folder is not None:
        from evaluation.results_folder import ResultsFolder

        out = ResultsFolder(output_folder)
        out.check(work.settings, overwrite=overwrite)
        finished = (
            [c.key for c in work.share if out.finished(c)] if out.holds(work.settings) else []
        )
    return _estimate(work, finished)


# --- preparing ----------------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Work:
    """Everything that is decided before the first case. `cases`: all; `share`: those of this part."""

    folder: Path
    options: Options
    model: SegmentationModel
    cases: list[CaseFiles]
    share: list[CaseFiles]
    runs: list[EvaluationRun]
    shifts_left_out: dict[str, str]
    attacks_left_out: dict[str, str]
    settings: dict[str, Any]
    surrogate: SegmentationModel | None = None

    def model_for(self, files: CaseFiles) -> tuple[SegmentationModel, SegmentationModel | None]:
        """The model (and surrogate) that may evaluate these files; one fold is in memory at a time."""
        if files.folds is not None and tuple(self.model.folds) != files.folds:
            self.model = _load(self.folder, self.options, files.folds)
            if self.surrogate is not None:
                self.surrogate = _load(Path(self.options.surrogate), self.options, files.folds)
        return self.model, self.surrogate


def _prepare(
    model_folder, *, images, labels, previous_stage, num_parts, part_id, options: Options
) -> _Work:
    if (images is None) != (labels is None):
        given, missing = (
            ("images (-i)", "labels (-l)") if labels is None else ("labels (-l)", "images (-i)")
        )
        raise UserError(
            f"{given} were given without {missing}; give both, or neither for each fold's validation cases"
        )
    num_parts, part_id = _parts(num_parts, part_id)
    from evaluation import inputs
    from evaluation.model.folder import find_folds
    from nnunetv2_lngswr.utils.checkpoints import sha256

    folder = Path(model_folder)
    # cheap checks first: names of attacks and shifts are wrong more often than models
    protocol.check_names(options)
    found = find_folds(folder, options.folds, options.checkpoint)
    validating = images is None
    if validating:
        inputs.refuse_fold_all(found)
    model = _load(folder, options, found[:1] if validating else found)
    previous_stage = None if previous_stage is None else Path(previous_stage)
    if validating:
        cases = inputs.from_cross_validation(
            dataset=model.plans.dataset_name,
            folds=found,
            ending=model.file_ending,
            channels=model.image_channels,
            previous_stage=previous_stage,
        )
    else:
        if not Path(images).is_dir():
            raise UserError(f"image folder {images} does not exist (-i)")
        cases = inputs.from_folders(
            model.list_images(images),
            Path(labels),
            ending=model.file_ending,
            previous_stage=previous_stage,
        )
    if model.is_cascade and previous_stage is None:
        raise UserError(
            f"{model.configuration} is a cascade: give the previous stage's segmentations (-prev_stage_predictions)"
        )
    cases = inputs.choose(cases, options.max_cases, seed=options.seed)
    schemes = model.configuration_manager.normalization_schemes
    runs, shifts_left_out, attacks_left_out = protocol.plan_runs(
        options,
        ct=all(s == "CTNormalization" for s in schemes),
        two_dimensional=len(model.patch_size) == 2,
        regions=model.label_space.regions,
        has_encoder=all(hasattr(n, "encoder") for n in model.networks),
    )
    surrogate, surrogate_folds = None, None
    if options.surrogate is not None:
        surrogate_folds = find_folds(
            Path(options.surrogate), found if validating else None, options.checkpoint
        )
        surrogate = _load(
            Path(options.surrogate), options, surrogate_folds[:1] if validating else surrogate_folds
        )
        model.check_surrogate(surrogate)

    def hashes(of: Path, folds) -> dict[str, str]:
        return {str(f): sha256(of / f"fold_{f}" / options.checkpoint) for f in folds}

    # paths, device index and versions do not change what is evaluated; they are in the summary
    description = {
        k: v
        for k, v in model.describe().items()
        if k not in ("folder", "versions", "device", "folds", "checkpoint_sha256")
    }
    settings = {
        "schema_version": 1,
        "model": {**description, "checkpoint_sha256": hashes(folder, found)},
        "plans_sha256": sha256(folder / "plans.json"),
        "surrogate": None
        if surrogate is None
        else hashes(Path(options.surrogate), surrogate_folds),
        "device": model.device.type,
        "options": {
            k: v
            for k, v in options.record().items()
            if k not in ("device", "folds", "surrogate", "trust_checkpoint")
        },
        "cases": [c.key for c in cases],
    }
    return _Work(
        folder=folder,
        options=options,
        model=model,
        cases=cases,
        share=cases[part_id::num_parts],
        runs=runs,
        shifts_left_out=shifts_left_out,
        attacks_left_out=attacks_left_out,
        settings=settings,
        surrogate=surrogate,
    )


def _parts(num_parts: int | None, part_id: int | None) -> tuple[int, int]:
    ranks = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if num_parts is None and part_id is None:
        return ranks
    if ranks[0] > 1:
        raise UserError(
            f"torchrun (WORLD_SIZE={ranks[0]}) and num_parts/part_id both divide the cases; use one of them"
        )
    if num_parts is None or num_parts < 1:
        raise UserError(f"num_parts must be >= 1, got {num_parts}")
    part_id = 0 if part_id is None else part_id
    if not 0 <= part_id < num_parts:
        raise UserError(
            f"part_id must be in 0..{num_parts - 1} (num_parts {num_parts}), got {part_id}"
        )
    return num_parts, part_id


def _load(folder: Path, options: Options, folds) -> SegmentationModel:
    from evaluation.model.folder import SegmentationModel

    return SegmentationModel.from_folder(
        folder,
        folds=folds,
        checkpoint=options.checkpoint,
        device=_device(options.device),
        tile_step_size=options.tile_step_size,
        use_mirroring=options.use_mirroring,
        trust_checkpoint=options.trust_checkpoint,
    )


def _device(name: str | None) -> str:
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device must be cpu, cuda, cuda:N or mps, got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda was asked for, and torch finds none; use -device cpu")
    return str(device)


def _check_inputs(work: _Work, cases: Sequence[CaseFiles], progress: bool) -> None:
    """Read every file once before the first attack: a bad one is better named now than after a night."""
    from tqdm import tqdm

    for files in tqdm(cases, desc="checking files", unit="case", disable=not progress, leave=False):
        work.model.read(files.images, files.label, files.previous_stage)


# --- running ------------------------------------------------------------------------------------------------------------------------


def _run(work: _Work, todo: Sequence[CaseFiles], out: ResultsFolder, progress: bool) -> None:
    from tqdm import tqdm

    from evaluation.run_case import run_case

    per_case = sum(r.cost for r in work.runs)
    # counted in plain predictions, so that the time left is right although attacks differ in length
    with tqdm(
        total=per_case * len(todo),
        disable=not progress,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} < {remaining}",
    ) as bar:
        for number, files in enumerate(todo):
            bar.set_description(f"case {number + 1}/{len(todo)} {files.identifier}")
            model, surrogate = work.model_for(files)
            result = run_case(
                model,
                files,
                work.runs,
                work.options,
                surrogate=surrogate,
                adversarial_folder=out.adversarial if work.options.save_adversarial else None,
                advance=bar.update,
            )
            out.save(files, result, _environment(model))


# plain predictions, below which starting processes takes longer than they save
WORTH_WORKERS = 1000


def _workers(asked: int | None, work: _Work, todo: Sequence[CaseFiles]) -> int:
    import torch

    if asked is None:
        slices_on_cpu = work.model.device.type == "cpu" and len(work.model.patch_size) == 2
        worth = sum(r.cost for r in work.runs) * len(todo) >= WORTH_WORKERS
        asked = torch.get_num_threads() if slices_on_cpu and worth else 1
    return max(1, min(asked, len(todo)))


def _exact_budgets(options: Options) -> dict[str, list[str]]:
    """As fractions: the record's text is rounded."""
    return {name: [str(e) for e in getattr(options, name)] for name in ("epsilons", "epsilons_l2")}


def _run_workers(
    workers: int,
    call: dict[str, Any],
    work: _Work,
    todo: Sequence[CaseFiles],
    out: ResultsFolder,
    progress: bool,
) -> None:
    """The cases in processes that call `_work_on`; ends them all where one fails."""
    import torch
    from tqdm import tqdm

    from nnunetv2_lngswr.utils.processes import ended_with_us

    out.discard(todo)
    threads = str(max(1, torch.get_num_threads() // workers))
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    for name in ("WORLD_SIZE", "RANK"):  # torchrun's share of the cases is divided here already
        environment.pop(name, None)
    command = [sys.executable, "-c", "from evaluation.robust import _work_on; _work_on()"]
    with (
        ExitStack() as stack,
        tqdm(total=len(todo), unit="case", desc=f"{workers} workers", disable=not progress) as bar,
    ):
        running = {}
        for i in range(workers):
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                text=True,
            )
            stack.enter_context(ended_with_us(stack.enter_context(child)))
            with suppress(BrokenPipeError):  # it has ended: why is in its errors
                child.stdin.write(json.dumps(call | {"cases": [c.key for c in todo[i::workers]]}))
                child.stdin.close()
            running[child] = errors
        while running:
            time.sleep(0.2)
            bar.update(sum(out.has_part(c) for c in todo) - bar.n)
            for child, errors in list(running.items()):
                if child.poll() is None:
                    continue
                del running[child]
                if child.returncode != 0:
                    errors.seek(0)
                    raise _error_of_worker(child.returncode, errors.read())


# exit statuses of a worker
_BAD_INPUT, _SYSTEM_ERROR = 2, 3


def _work_on() -> None:
    """What a worker does: the cases that `_run_workers` names on stdin."""
    call = json.load(sys.stdin)
    try:
        options = Options(**call["options"])
        inputs = {k: call[k] for k in ("images", "labels", "previous_stage")}
        work = _prepare(call["model_folder"], **inputs, num_parts=1, part_id=0, options=options)
        from evaluation.results_folder import ResultsFolder

        keys = set(call["cases"])
        _run(
            work,
            [c for c in work.share if c.key in keys],
            ResultsFolder(call["output_folder"]),
            progress=False,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(_BAD_INPUT)
    except OSError as error:
        print(f"{error.errno or 0} {error.strerror or error}", file=sys.stderr)
        sys.exit(_SYSTEM_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)


def _error_of_worker(status: int, said: str) -> BaseException:
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if status == _BAD_INPUT:
        return ValueError(last)
    if status == _SYSTEM_ERROR:
        number, _, text = last.partition(" ")
        return OSError(int(number), text)
    if status == 130:
        return KeyboardInterrupt()
    return RuntimeError(
        f"a worker ended with status {status}; finished cases are kept. It said:\n{said.strip()[-2000:]}"
    )


def _environment(model: SegmentationModel) -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    import nnunetv2_lngswr

    return {**found, "nnunetv2_lngswr": nnunetv2_lngswr.__version__, "device": model.device.type}


def _merge(work: _Work, out: ResultsFolder) -> dict[str, Any]:
    """The report from all parts, in the order of the cases. Several processes may do it at once: they write the same."""
    from evaluation.report import cases_table, examples, figures, markdown, records

    parts = [out.load(c) for c in work.cases]
    rows = [row for part in parts for row in part["rows"]]
    summary = _summary(work, parts, rows)
    cases_table.write_cases(out.path / "cases.csv", rows)
    records.write_summary(out.path / "summary.json", summary)
    markdown.write_report(out.path / "report.md", summary)
    figures.draw_curves(out.path / "curves.png", summary)
    shown = [(c, p) for c, p in zip(work.cases, parts) if p["example"] is not None]
    if shown:
        chosen = examples.choose_examples([p["example"] for _, p in shown])
        examples.draw_examples(
            out.path / "examples.png", [(title, out.load_example(*shown[i])) for title, i in chosen]
        )
    out.tidy()
    return summary


def _summary(
    work: _Work, parts: Sequence[Mapping[str, Any]], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    from evaluation.corruptions import CORRUPTIONS
    from evaluation.metrics import EMPTY_MASK_RULE
    from evaluation.report import records
    from evaluation.report.checks import checks

    model, options = work.model, work.options
    results = records.summarise(rows, seed=options.seed)
    validating = work.cases[0].folds is not None
    folds = (
        list(dict.fromkeys(f for c in work.cases for f in c.folds))
        if validating
        else list(model.folds)
    )
    environments = [dict(e) for e in dict.fromkeys(tuple(p["environment"].items()) for p in parts)]
    natural = "NaturalImage" in model.plans.image_reader_writer_class.__name__
    notes = list(dict.fromkeys(n for p in parts for n in p["notes"]))
    roundtrip = [p["roundtrip"] for p in parts if p["roundtrip"] is not None]
    if roundtrip:
        notes.append(
            f"saved perturbed cases, read back and preprocessed, differ from what was attacked by at most {max(roundtrip):.2g} of the range "
            "(z-scoring takes mean and sd anew from the perturbed image; inf: the nonzero crop changed)"
        )
    notes += [
        f"attack {name} was left out: it {why}" for name, why in work.attacks_left_out.items()
    ]
    if model.is_cascade:
        notes.append(
            "cascade: the previous stage's segmentation is an input that stays fixed; only the image is attacked"
        )
    if options.surrogate is not None:
        sha = "; ".join(
            f"fold {fold}: {digest}" for fold, digest in work.settings["surrogate"].items()
        )
        notes.append(f"transfer: perturbations made on {options.surrogate}, SHA-256 {sha}")
    if len(environments) > 1:
        notes.append(
            f"the cases were evaluated in {len(environments)} different environments; see environments in summary.json"
        )
    shifts_run = dict.fromkeys(r.name for r in work.runs if r.kind == "shift")
    return {
        "schema_version": records.SCHEMA_VERSION,
        # one fold is loaded at a time: what is said is about all that took part
        "model": {
            **model.describe(),
            "folds": folds,
            "checkpoint_sha256": {
                f: h
                for f, h in work.settings["model"]["checkpoint_sha256"].items()
                if f in map(str, folds)
            },
        },
        "protocol": (
            f"cross-validation: {len(work.cases)} validation cases, each by the model of the fold that has not seen it"
            if validating
            else f"{len(work.cases)} cases by the mean over fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
        ),
        "threat_model": {
            "knowledge": "white box: model, reference and deployed inference",
            "epsilon_unit": options.epsilon_unit,
            "linf": "max |perturbation| <= epsilon",
            "l2": "root mean square over attackable voxels and channels <= epsilon",
            "bounds": "[min, max] of the clean case per channel",
        },
        "options": options.record(),
        "metrics": {
            "nsd_tolerance": options.nsd_tolerance,
            "surface_unit": "pixels" if natural else "mm",
            "empty_mask_rule": EMPTY_MASK_RULE,
            "mean": "per label over cases where defined, then over labels (nnU-Net's)",
            "intervals": "95% percentile bootstrap over cases, 2000 resamples",
        },
        "surrogate": work.settings["surrogate"],
        "cases": [c.identifier for c in work.cases],
        "attacks": records.attack_settings(rows),
        "results": results,
        "checks": checks(results),
        "shifts_left_out": work.shifts_left_out,
        "shift_strengths": {
            n: {"strengths": list(CORRUPTIONS[n].strengths), "unit": CORRUPTIONS[n].unit}
            for n in shifts_run
        },
        "notes": notes,
        "cost": _cost(work.runs, parts),
        "environment": environments[0],
        "environments": environments,
    }


def _cost(
    runs: Sequence[EvaluationRun], parts: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Per attack or shift, the mean over cases and budgets or severities."""
    titles: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        titles.setdefault((run.name, run.norm if run.kind == "attack" else ""), []).append(
            run.title
        )
    cost = []
    for (name, norm), group in titles.items():
        seconds = [p["seconds"][t] for p in parts for t in group]
        evaluations = [p["evaluations"][t] for p in parts for t in group]
        cost.append(
            {
                "run": f"{name} ({norm})" if norm else name,
                "seconds": sum(seconds) / len(seconds),
                "forwards": sum(e[0] for e in evaluations) / len(evaluations),
                "gradients": sum(e[1] for e in evaluations) / len(evaluations),
            }
        )
    return cost


def _estimate(work: _Work, finished: Sequence[str]) -> dict[str, Any]:
    import resource
    import time

    import torch

    from evaluation.run_case import sliding_window
    from nnunetv2_lngswr.attacks.losses import cross_entropy

    model, _ = work.model_for(work.cases[0])
    files = work.cases[0]
    started = time.perf_counter()
    case = model.preprocess(files.images, files.label, files.previous_stage)
    preprocessing = time.perf_counter() - started
    started = time.perf_counter()
    model.predict(case)
    prediction = time.perf_counter() - started
    window = sliding_window(model, work.options)
    x, target = case.batch.to(model.device), case.target(model.label_space).to(model.device)
    started = time.perf_counter()
    window.value_and_gradient(x, lambda z: cross_entropy(z, target))[1].cpu()
    gradient = time.perf_counter() - started
    cuda = model.device.type == "cuda"
    # Linux counts in KiB
    peak = (
        torch.cuda.max_memory_allocated(model.device)
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    per_case = preprocessing + sum(
        prediction * (1 + r.forwards) + gradient * r.gradients for r in work.runs
    )
    return {
        "cases": [c.key for c in work.cases],
        "share": [c.key for c in work.share],
        "finished": list(finished),
        "runs": [r.title for r in work.runs],
        "shifts_left_out": work.shifts_left_out,
        "attacks_left_out": work.attacks_left_out,
        "prediction_seconds": prediction,
        "gradient_seconds": gradient,
        "seconds_per_case": per_case,
        "seconds": per_case * (len(work.share) - len(finished)),
        "peak_memory_bytes": peak,
        "device": str(model.device),
    }


# --- the command --------------------------------------------------------------------------------------------------------------------


PROG = "python -m evaluation.robust"


def main(argv: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """Exit codes: 0 done (or this part done), 2 bad input or a full disk, with the reason on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # argparse takes '-1/255' for a flag; with a space in front it reaches our message
    arguments = vars(
        _parser(prog).parse_args(
            [f" {a}" if a[:1] == "-" and a[1:2].isdigit() else a for a in argv]
        )
    )
    dry_run, quiet, workers = (
        arguments.pop(name) for name in ("dry_run", "disable_progress_bar", "workers")
    )
    output = arguments.pop("output_folder")
    from evaluation.results_folder import OUTPUTS

    try:
        arguments |= _steps(arguments["steps"])
        if dry_run:
            _print_estimate(estimate(arguments.pop("model_folder"), output, **arguments))
            return 0
        done = evaluate(
            arguments.pop("model_folder"), output, progress=not quiet, workers=workers, **arguments
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = (
            "free space and run the same command again"
            if full
            else "then run the same command again"
        )
        print(
            f"error: {output}: {error.strerror or error}; finished cases are kept: {advice}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(
            f"interrupted; finished cases are kept in {output}: run the same command again to go on",
            file=sys.stderr,
        )
        return 130
    if done.finished:
        print((done.folder / "report.md").read_text().split("\n## ", 1)[0].rstrip())
        print(
            f"\nwritten to {done.folder}: {', '.join(n for n in OUTPUTS if (done.folder / n).is_file())}"
        )
    else:
        print(f"this part is done; the part that ends last writes the report into {done.folder}")
    return 0


def _parser(prog: str = PROG) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Attack and shift what an nnU-Net v2 model folder deploys, and report how far Dice falls. Results of the same settings in OUT are "
        "resumed: finished cases are not repeated.",
    )
    add = parser.add_argument
    add(
        "-m",
        dest="model_folder",
        required=True,
        metavar="MODEL_FOLDER",
        help="TRAINER__PLANS__CONFIGURATION with fold_X subfolders",
    )
    add(
        "-i",
        dest="images",
        metavar="IMAGES",
        help="image folder (<case>_0000.ext); without -i and -l: each fold's validation cases, each by the model that has not seen it",
    )
    add("-l", dest="labels", metavar="LABELS", help="label folder (<case>.ext)")
    add("-o", dest="output_folder", required=True, metavar="OUT", help="output folder")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="folds; default: those found")
    add(
        "-chk",
        dest="checkpoint",
        default=DEFAULTS.checkpoint,
        help="checkpoint name; default: %(default)s",
    )
    add(
        "-step_size",
        dest="tile_step_size",
        type=float,
        default=DEFAULTS.tile_step_size,
        help="sliding-window step; default: %(default)s",
    )
    add(
        "-device",
        dest="device",
        default=DEFAULTS.device,
        help="cuda, cpu or mps; default: cuda where there is one",
    )
    add(
        "-num_parts",
        dest="num_parts",
        type=int,
        help="share the cases among this many calls; torchrun does the same",
    )
    add("-part_id", dest="part_id", type=int, help="which of them this call is, from 0")
    add(
        "-prev_stage_predictions",
        dest="previous_stage",
        metavar="FOLDER",
        help="segmentations of the previous stage, for a cascade",
    )
    add("--disable_tta", dest="use_mirroring", action="store_false", help="no mirroring")
    attacks = parser.add_argument_group("attacks")
    add = attacks.add_argument
    add(
        "--attacks",
        nargs="*",
        default=DEFAULTS.attacks,
        metavar="NAME",
        help=f"default: {' '.join(DEFAULTS.attacks)}; also pgd_linf_dice_ce, pgd_l2_dice_ce, cospgd, apgd_masked_ce, apgd_js, ssah_project, square, transfer, torchattacks:NAME; NAME_l2 runs one in L2; worst_linf and worst_l2 are always reported",
    )
    add(
        "--epsilons",
        nargs="*",
        metavar="E",
        help=f"Linf budgets, such as 4/255; default: {' '.join(protocol.EPSILONS)} of the range",
    )
    add(
        "--epsilons-l2",
        nargs="*",
        metavar="E",
        help=f"L2 budgets, root mean square per voxel; default: {' '.join(protocol.EPSILONS_L2)} of the range",
    )
    add(
        "--epsilon-unit",
        default=DEFAULTS.epsilon_unit,
        metavar="UNIT",
        help="range (of each channel, after preprocessing), normalized (preprocessed units) or original (units of the file, HU); default: %(default)s",
    )
    add(
        "--steps",
        nargs="+",
        metavar="N",
        help="of pgd, segpgd, cospgd, apgd and transfer; NAME=N for one attack, also ssah and square; default: each attack's own",
    )
    add(
        "--restarts",
        type=int,
        default=DEFAULTS.restarts,
        help="of attacks with a random start, and draws of the noise control, of which the worst counts; default: each attack's own",
    )
    add(
        "--seed", type=int, default=DEFAULTS.seed, help="of everything random; default: %(default)s"
    )
    add(
        "--surrogate",
        metavar="MODEL_FOLDER",
        help="model on which transfer makes its perturbations; adds that attack",
    )
    add(
        "--save-adversarial",
        action="store_true",
        help="write perturbed cases into OUT/adversarial, as float images where that is exact",
    )
    other = parser.add_argument_group("shifts and work")
    add = other.add_argument
    add(
        "--shifts",
        nargs="*",
        default=DEFAULTS.shifts,
        metavar="NAME",
        help="default: all that apply to the data set; none: no shifts",
    )
    add(
        "--nsd-tolerance",
        type=float,
        default=DEFAULTS.nsd_tolerance,
        metavar="MM",
        help="of the normalised surface Dice; default: %(default)s",
    )
    add(
        "--max-cases",
        type=int,
        default=DEFAULTS.max_cases,
        metavar="N",
        help="a seeded choice of N cases",
    )
    add(
        "--window-batch-size",
        type=int,
        default=DEFAULTS.window_batch_size,
        metavar="N",
        help="windows (mirrored copies included) per network call: memory against speed; default: 8 (2D) or 1 (3D)",
    )
    add(
        "--autocast",
        action="store_true",
        help="attack in mixed precision, as nnU-Net predicts on CUDA: faster there; losses stay in fp32; default: all in fp32",
    )
    add(
        "--workers",
        type=int,
        metavar="N",
        help="processes that share the cases and the CPU threads; default: one per core for 2D on a CPU, else 1",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print cases, runs and an estimate of time and memory, and write nothing",
    )
    add("--overwrite", action="store_true", help="replace results of other settings in OUT")
    add(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that hold more than tensors and numbers; runs their code",
    )
    add("--disable_progress_bar", action="store_true", help="no progress bar")
    return parser


def _steps(given: Sequence[str] | None) -> dict[str, Any]:
    """--steps 20 ssah=200 as options."""
    options: dict[str, Any] = {"steps": None, "steps_of": {}}
    for word in given or ():
        name, _, number = word.strip().rpartition("=")
        if not number.isdigit():
            raise UserError(f"steps must be N or NAME=N, got {word!r}")
        if name:
            options["steps_of"][name] = int(number)
        else:
            options["steps"] = int(number)
    return options


def _print_estimate(found: Mapping[str, Any]) -> None:
    print(
        f"{len(found['cases'])} cases, {len(found['share'])} of them in this part: {', '.join(found['share'][:8])}{' ...' if len(found['share']) > 8 else ''}"
    )
    print(f"{len(found['runs'])} runs per case: {', '.join(found['runs'])}")
    if found["finished"]:
        print(f"{len(found['finished'])} cases are finished already")
    for name, why in {**found["attacks_left_out"], **found["shifts_left_out"]}.items():
        print(f"left out: {name} ({why})")
    print(
        f"first case on {found['device']}: a prediction takes {found['prediction_seconds']:.2f} s, a gradient {found['gradient_seconds']:.2f} s"
    )
    print(
        f"estimate, if all cases are like it: {_duration(found['seconds_per_case'])} per case, {_duration(found['seconds'])} for this part"
    )
    print(f"peak memory: {found['peak_memory_bytes'] / 2**30:.1f} GiB")


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:.1f} min"
        if seconds >= 60
        else f"{seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
