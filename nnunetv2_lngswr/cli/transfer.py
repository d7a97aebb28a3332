"""`lngswr benchmark transfer`."""

import argparse

from evaluation.groups import OPTION as GROUPS
from nnunetv2_lngswr.cli.arguments import Commands, add_device, options_of, say
from nnunetv2_lngswr.experiments.transfer import Options
from nnunetv2_lngswr.utils.names import printable_page
from nnunetv2_lngswr.utils.option_types import count, given_text


def add_benchmark(benchmarks: Commands) -> None:
    """Add the benchmark to those of `lngswr benchmark`."""
    command = benchmarks.add_parser(
        "transfer",
        help="models on data sets that they were not trained on; resumable",
        description=(
            "Evaluates every model on the validation cases of its own data set and on the cases of "
            "every other one, and writes transfer.md, transfer.json and transfer.png: what is lost "
            "from one source to another, clean and attacked. The same call goes on where an "
            "earlier one stopped."
        ),
    )
    _add_inputs(command)
    _add_evaluation(command)
    _add_meaning(command)
    add_device(command)
    command.add_argument(
        "--dry-run", action="store_true", help="check everything, print the commands, write nothing"
    )
    command.set_defaults(run=_transfer)


def _add_inputs(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "-m",
        dest="models",
        nargs="+",
        type=given_text,
        required=True,
        metavar="MODEL_FOLDER",
        help="TRAINER__PLANS__CONFIGURATION with fold_X subfolders; the first is compared with",
    )
    add(
        "-d",
        dest="data_sets",
        nargs="+",
        type=given_text,
        required=True,
        metavar="DATASET",
        help="full names in nnUNet_raw, those of the models among them",
    )
    add(
        "-o",
        dest="output",
        type=given_text,
        required=True,
        metavar="OUT",
        help="folder for everything it writes; the same one goes on",
    )
    add(
        "-f",
        dest="folds",
        nargs="+",
        metavar="FOLD",
        help="folds, each by itself; default: those found in each model",
    )
    add(
        "-chk",
        dest="checkpoint",
        type=given_text,
        default=Options.checkpoint,
        help="checkpoint name (%(default)s)",
    )
    add(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that hold more than tensors and numbers, and import what the plans "
        "name from anywhere; runs their code",
    )


def _add_evaluation(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    for name, metavar in (
        ("attacks", "NAME"),
        ("epsilons", "E"),
        ("epsilons_l2", "E"),
        ("corruptions", "NAME"),
    ):
        default = getattr(Options, name)
        add(
            f"--{name.replace('_', '-')}",
            nargs="+",
            default=list(default),
            metavar=metavar,
            help=f"as for lngswr evaluate, or none ({' '.join(default)})",
        )
    add(
        "--max-cases",
        type=count,
        metavar="N",
        help="a seeded choice of N cases of every data set, of a model's own of each fold; "
        "default: all",
    )
    add(
        GROUPS,
        nargs="+",
        type=given_text,
        metavar="[DATASET=]PATTERN|CSV",
        help="what intervals draw as one, such as a patient's images, as for lngswr evaluate; of "
        "all data sets or of one; default: those that the evaluations were made with",
    )


def _add_meaning(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--map-labels",
        nargs="+",
        type=given_text,
        default=[],
        metavar="NAME=OTHER",
        help="names of labels that mean the same in two data sets; capitals need none",
    )
    add(
        "--allow-other-channels",
        action="store_true",
        help="take data sets whose channels nnU-Net would normalise otherwise than the model's",
    )


def _transfer(arguments: argparse.Namespace) -> int:
    given = options_of(arguments)
    models, data_sets, output = (given.pop(name) for name in ("models", "data_sets", "output"))
    options = Options(**given)
    from nnunetv2_lngswr.experiments.transfer.report import OUTPUTS
    from nnunetv2_lngswr.experiments.transfer.run import benchmark_transfer

    folder = benchmark_transfer(models, data_sets, output, options, say=say)
    if not options.dry_run:
        print(printable_page(folder / "transfer.md"))
        print(f"\nwritten to {folder}: {', '.join(OUTPUTS)}")
    return 0
