"""`lngswr robustify`."""

import argparse
import shlex

from evaluation.groups import add_option as add_groups_option
from nnunetv2_lngswr.cli.arguments import Commands, add_device, options_of, say, settings_of
from nnunetv2_lngswr.experiments.robustify import TRAINERS, Options
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import printable_page
from nnunetv2_lngswr.utils.option_types import count, given_text


def add_command(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser(
        "robustify",
        help="a trained model made robust with a share of its own training, evaluated before and "
        "after; resumable",
        description=(
            "Trains a model that exists adversarially for a share of its own epochs, from its own "
            "weights and on the data that are preprocessed for it, and evaluates it before and "
            "after. The given model is only read; the new one is an ordinary model folder. The "
            "same call goes on where an earlier one stopped."
        ),
    )
    _add_model(command)
    _add_training(command)
    _add_evaluation(command)
    command.add_argument(
        "--dry-run", action="store_true", help="check everything, print the commands, write nothing"
    )
    command.set_defaults(run=_robustify)


def _add_model(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "model",
        nargs="?",
        type=given_text,
        metavar="MODEL",
        help="TRAINER__PLANS__CONFIGURATION, or a zip file of nnUNetv2_export_model_to_zip",
    )
    add("-m", dest="model_too", type=given_text, metavar="MODEL", help="the same, as elsewhere")
    add(
        "-o",
        dest="output",
        type=given_text,
        required=True,
        metavar="OUT",
        help="folder for everything it writes but the new plans; the same one goes on",
    )
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="folds; default: those found")
    add(
        "-c",
        dest="configuration",
        type=given_text,
        metavar="CONFIGURATION",
        help="which model of a zip file that holds several; a folder must be of it",
    )
    add(
        "-chk",
        dest="checkpoint",
        type=given_text,
        default=Options.checkpoint,
        help="checkpoint name to start from (%(default)s)",
    )
    add(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that hold more than tensors and numbers, and import what the plans "
        "name from anywhere; runs their code",
    )


def _add_training(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "-tr",
        dest="trainer",
        type=given_text,
        metavar="TRAINER",
        help=f"{' or '.join(TRAINERS.values())}; default: the one whose network is the model's",
    )
    add(
        "--share",
        type=float,
        default=Options.share,
        help="of the model's own budget (%(default)s)",
    )
    add(
        "--settings",
        metavar="JSON",
        help='over the "lngswr" entry of the new plans, such as '
        '\'{"adversarial": {"epsilon": "8/255"}}\'',
    )
    add_device(command)


def _add_evaluation(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("-i", dest="images", type=given_text, metavar="IMAGES", help="as for lngswr evaluate")
    add("-l", dest="labels", type=given_text, metavar="LABELS", help="as for lngswr evaluate")
    for name, metavar in (("attacks", "NAME"), ("epsilons", "E"), ("epsilons_l2", "E")):
        default = getattr(Options, name)
        add(
            f"--{name.replace('_', '-')}",
            nargs="+",
            default=list(default),
            metavar=metavar,
            help=f"as for lngswr evaluate ({' '.join(default)})",
        )
    add(
        "--max-cases",
        type=count,
        default=Options.max_cases,
        metavar="N",
        help="a seeded choice of N cases (%(default)s)",
    )
    add_groups_option(command, "as for lngswr evaluate")
    add("--skip-evaluation", action="store_true", help="train only")
    add(
        "--disable_progress_bar",
        dest="progress",
        action="store_false",
        help="no progress of the evaluations",
    )


def _robustify(arguments: argparse.Namespace) -> int:
    given = options_of(arguments)
    if given["settings"] is not None:
        given["settings"] = settings_of(given["settings"])
        if given["settings"] is None:  # would be taken for an option that was not given
            raise UserError("--settings must be a JSON object, got null")
    places = [place for place in (given.pop("model"), given.pop("model_too")) if place is not None]
    if len(places) != 1:
        raise UserError(
            "give one model: lngswr robustify MODEL -o OUT, before -f and its folds, or -m MODEL"
        )
    (model,), output = places, given.pop("output")
    options = Options(**given)
    from evaluation.compare import OUTPUTS
    from nnunetv2_lngswr.experiments.robustify.run import robustify

    done = robustify(model, output, options, say=say)
    if options.dry_run:
        return 0
    if not options.skip_evaluation:
        print(printable_page(done.comparison / "compare.md"))
        print(f"\nwritten to {done.comparison}: {', '.join(OUTPUTS)}")
    print(f"robust model: {done.robust}")
    print(f"nnUNet_results={shlex.quote(str(done.results))} {shlex.join(done.prediction)}")
    return 0
