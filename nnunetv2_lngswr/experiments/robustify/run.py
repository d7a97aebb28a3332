"""A robustification from the given model to the comparison."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from evaluation.compare import compare
from nnunetv2_lngswr.attacks.suites import words_of_before
from nnunetv2_lngswr.experiments.devices import default_device
from nnunetv2_lngswr.experiments.robustify.given_model import opened, read_model
from nnunetv2_lngswr.experiments.robustify.new_plans import (
    VAL_BATCHES,
    choose_trainer,
    entry_of,
    make_plans,
    new_budget,
    start_file,
)
from nnunetv2_lngswr.experiments.robustify.options import BUDGET, Options
from nnunetv2_lngswr.experiments.robustify.preprocessed import find_preprocessed
from nnunetv2_lngswr.experiments.robustify.start import make_start
from nnunetv2_lngswr.experiments.robustify.steps import AFTER, BEFORE, Plan, steps
from nnunetv2_lngswr.experiments.robustness.times import training_seconds
from nnunetv2_lngswr.installation.register import check_trainers_are_found
from nnunetv2_lngswr.training.settings import ADVERSARIAL_KEY, PLANS_KEY
from nnunetv2_lngswr.utils.checkpoints import save_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import holds_nothing, read_json, write_file
from nnunetv2_lngswr.utils.locks import hold
from nnunetv2_lngswr.utils.output_folder import output_folder
from nnunetv2_lngswr.utils.processes import run_command

MARKER = "robustify.json"
Say = Callable[[str], None]


def robustify(
    model: str | Path,
    output: str | Path,
    options: Options | None = None,
    *,
    say: Say = lambda line: None,
) -> Plan:
    """Train a model adversarially for a share of its own epochs, and evaluate it before and after.

    Parameters
    ----------
    model
        TRAINER__PLANS__CONFIGURATION of any nnU-Net v2 training, or a zip file of
        nnUNetv2_export_model_to_zip; only read.
    output
        Folder for everything but the new plans, which nnU-Net wants in nnUNet_preprocessed; the
        same one goes on.
    options
        Folds, trainer, share, ...; None: the defaults.
    say
        Receives each line for the user.

    Returns
    -------
    Plan
        What was done, with the folders of the new model, the evaluations and the comparison.

    Raises
    ------
    UserError
        No model, its preprocessed data are not there, options that do not apply, an `output` of
        something else or in use by another call.
    CommandError
        A command failed.
    """
    options = options or Options()
    source, folder = Path(model).absolute(), output_folder(output)
    _check_place(source, folder)
    check_trainers_are_found()
    with opened(source, options.configuration) as opened_folder:
        plan = _plan(source, opened_folder, folder, options)
        _check_record(plan)
        if options.dry_run:
            _say_plan(plan, say)
            _run_steps(plan, say)
            return plan
        with hold(folder, "lngswr robustify"):
            _check_place(source, folder)
            _check_record(plan)
            _say_plan(plan, say)
            _write_inputs(plan)
            _run_steps(plan, say)
    return plan


def _check_place(source: Path, output: Path) -> None:
    if output.is_relative_to(os.path.realpath(source)):
        raise UserError(f"{output} lies in the given model, which is only read: choose another -o")
    if not (output / MARKER).is_file() and not holds_nothing(output):
        raise UserError(f"{output} exists and is not of lngswr robustify: choose another -o")


def _plan(source: Path, folder: Path, output: Path, options: Options) -> Plan:
    """Decide everything; raises UserError for all that can be known by now."""
    model = read_model(folder, options)
    trainer = choose_trainer(model, options)
    plan = Plan(
        model=model,
        source=source,
        output=output,
        preprocessed=find_preprocessed(model, options),
        trainer=trainer,
        plans=make_plans(
            model, output / "start", options, shorten_curve=not _has_whole_curve(output)
        ),
        options=options,
        device=options.device or default_device(),
    )
    for fold in model.folds:
        make_start(model, fold, plan.plans, trainer, trust=options.trust_checkpoint)
    return plan


def _has_whole_curve(output: Path) -> bool:
    """Whether OUT was begun with the trainer's own robust curve, as earlier versions did however
    short the epochs: it goes on with that."""
    marker = output / MARKER
    if not marker.is_file():
        return False
    settings = read_json(marker, needs=("model",)).get("settings")
    adversarial = settings.get(ADVERSARIAL_KEY) if isinstance(settings, dict) else None
    return isinstance(adversarial, dict) and VAL_BATCHES not in adversarial


def _record(plan: Plan) -> dict[str, Any]:
    options = plan.options
    record = {
        "model": str(plan.source),
        "checkpoint": plan.model.checkpoint,
        "checkpoint_sha256": plan.model.checkpoint_sha256,
        "trainer": plan.trainer,
        "share": options.share,
        "budget": plan.model.budget,
        "plans_name": plan.plans_name,
        "settings": entry_of(plan.plans, plan.model.configuration),
        "evaluation": None if options.skip_evaluation else options.evaluation,
    }
    return json.loads(json.dumps(record))  # as it is read again


def _check_record(plan: Plan) -> None:
    """Refuse the folder of another robustification."""
    marker = plan.output / MARKER
    if not marker.is_file():
        return
    here = _record(plan)
    there = read_json(marker, needs=("model",))
    if isinstance(there.get("evaluation"), list):
        there["evaluation"] = words_of_before(there["evaluation"])
    asked, its = here["checkpoint_sha256"], there.get("checkpoint_sha256")
    if isinstance(its, dict) and its.keys() != asked.keys():
        raise UserError(
            f"{plan.output} is of fold {' '.join(its)} ({MARKER} there), asked for was "
            f"{' '.join(asked)}: give the same folds (-f), or choose another folder with -o"
        )
    changed = [key for key in here if key in there and there[key] != here[key]]
    # evaluations can be left out, or come later
    if changed == ["evaluation"] and None in (there["evaluation"], here["evaluation"]):
        changed = []
    if changed:
        raise UserError(
            f"{plan.output} is of a call with another {', '.join(changed)} ({MARKER} there): "
            "choose another folder with -o"
        )
    read_json(marker, needs=tuple(here))  # of the same call, and damaged


def _write_inputs(plan: Plan) -> None:
    """Write the record, the given model of a zip file, the new plans and what folds start from."""
    marker, record = plan.output / MARKER, _record(plan)
    if record["evaluation"] is None and marker.is_file():
        record["evaluation"] = read_json(marker, needs=("evaluation",))["evaluation"]
    write_file(marker, json.dumps(record, indent=1) + "\n")
    if plan.given != plan.model.folder and not plan.given.is_dir():
        partial = plan.given.with_name(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(plan.model.folder, partial)
        partial.rename(plan.given)
    write_file(plan.new_plans, json.dumps(plan.plans, indent=4) + "\n")
    for fold in plan.model.folds:
        file = start_file(plan.starts, fold)
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            trust = plan.options.trust_checkpoint
            save_checkpoint(
                make_start(plan.model, fold, plan.plans, plan.trainer, trust=trust), file
            )


def _run_steps(plan: Plan, say: Say) -> None:
    for step in steps(plan):
        if step.done:
            say(f"{step.name}: done before")
        elif plan.options.dry_run:
            say("$ " + shlex.join(step.command))
        else:
            log = plan.output / "logs" / f"{step.name}.log"
            environment = {"MPLBACKEND": "Agg", **_environment(plan)}
            run_command(step.command, log, environment=environment, say=say, show=step.show)
    if not plan.options.dry_run:
        _say_cost(plan, say)
    if plan.options.skip_evaluation:
        return
    folders = [plan.evaluation(when) for when in (BEFORE, AFTER)]
    command = ["lngswr", "compare", *map(str, folders), *plan.options.grouping]
    say("$ " + shlex.join([*command, "-o", str(plan.comparison)]))
    if not plan.options.dry_run:
        compare(folders, plan.comparison, names=[BEFORE, AFTER], groups=plan.options.groups)


def _say_cost(plan: Plan, say: Say) -> None:
    """What the epochs took, and of the given model's what share, where its logs are there."""
    for fold in plan.model.folds:
        own, given = (_minutes(of / f"fold_{fold}") for of in (plan.robust, plan.model.folder))
        if own is None:
            continue
        share = "" if given is None else f", {own / given:.0%} of the given model's {given:.1f}"
        say(f"fold {fold}: the epochs took {own:.1f} minutes{share}")


def _minutes(fold: Path) -> float | None:
    """Of its epochs; None where logs are missing, as in a zip file and in a copied folder."""
    with suppress(UserError, OSError):
        return training_seconds(fold) / 60
    return None


def _environment(plan: Plan) -> Mapping[str, str]:
    found = {
        "nnUNet_preprocessed": str(plan.preprocessed.parent),
        "nnUNet_results": str(plan.results),
    }
    if os.environ.get("nnUNet_raw"):
        found["nnUNet_raw"] = str(Path(os.environ["nnUNet_raw"]).absolute())
    if plan.device == "cpu":
        found["nnUNet_compile"] = "f"
    return found


def _say_plan(plan: Plan, say: Say) -> None:
    new, given = (
        " x ".join(str(budget[key]) for key in BUDGET[:2])
        for budget in (new_budget(plan.model, plan.options.share), plan.model.budget)
    )
    folds = " ".join(map(str, plan.model.folds))
    say(
        f"{plan.model.trainer}, {plan.model.configuration}, fold {folds}, {given} iterations: "
        f"{new} more with {plan.trainer}"
    )
    if plan.model.trains_otherwise:
        say(
            f"Note: {plan.model.trainer} may differ from nnUNetTrainer in augmentation, mirroring "
            f"or loss; {plan.trainer} trains as nnUNetTrainer does."
        )
    entry = entry_of(plan.plans, plan.model.configuration)
    say(f'Plans: {plan.new_plans}, the model\'s own with "{PLANS_KEY}": {json.dumps(entry)}')
    for name, value in _environment(plan).items():
        say(f"export {name}={shlex.quote(value)}")
