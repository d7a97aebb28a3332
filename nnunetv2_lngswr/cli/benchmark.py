"""`lngswr benchmark robustness`, `lngswr benchmark overhead`, and where transfer.py is added."""

import argparse
from collections.abc import Iterable

from evaluation.groups import add_option as add_groups_option
from nnunetv2_lngswr.cli import transfer
from nnunetv2_lngswr.cli.arguments import Commands, add_device, options_of, say, settings_of
from nnunetv2_lngswr.experiments.robustness import ARMS, BASELINE, PRESETS, Options
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.names import printable_page
from nnunetv2_lngswr.utils.option_types import given_text
from nnunetv2_lngswr.utils.output_folder import input_file


def add_command(commands: Commands) -> None:
    """Add `benchmark` with its three benchmarks."""
    command = commands.add_parser(
        "benchmark",
        help="robustness of arms trained at one equal budget; models on other data sets; overhead "
        "beside vanilla nnU-Net",
    )
    benchmarks = command.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    _add_robustness(benchmarks)
    transfer.add_benchmark(benchmarks)
    _add_overhead(benchmarks)


def _add_robustness(benchmarks: Commands) -> None:
    command = benchmarks.add_parser(
        "robustness",
        help="arms trained through nnU-Net, attacked and corrupted, in one table",
        description=(
            "Trains vanilla nnU-Net and each ARM, a trainer by its short name, through nnU-Net at "
            "one equal budget, evaluates each on the validation cases of its fold, and writes "
            "robustness.md and robustness.json. The same call goes on where an earlier one "
            "stopped, and takes further arms, folds and seeds."
        ),
    )
    _add_data(command)
    _add_training(command)
    _add_evaluation(command)
    add_device(command)
    command.add_argument("--dry-run", action="store_true", help="print the commands")
    command.set_defaults(run=_robustness)


def _add_data(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "-d",
        "--data-set",
        dest="dataset",
        type=given_text,
        required=True,
        metavar="DATASET",
        help="full name in nnUNet_raw, such as Dataset611_ThyroidUS",
    )
    add(
        "-c",
        dest="configuration",
        type=given_text,
        required=True,
        metavar="CONFIGURATION",
        help="2d, 3d_fullres, ...",
    )
    add(
        "-o",
        dest="output",
        type=given_text,
        required=True,
        metavar="FOLDER",
        help="folder for everything it writes; the same one goes on",
    )


def _add_training(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--arms",
        nargs="+",
        metavar="ARM",
        default=list(Options.arms),
        help=f"of {', '.join(ARMS)} (all of them); {BASELINE} is always one",
    )
    add(
        "--folds",
        nargs="+",
        type=int,
        default=list(Options.folds),
        help=f"folds of splits_final.json ({_listed(Options.folds)})",
    )
    add(
        "--seeds",
        nargs="+",
        type=int,
        default=list(Options.seeds),
        help=f"seeds of the training ({_listed(Options.seeds)})",
    )
    presets = ", ".join(f"{name} ({preset.summary})" for name, preset in PRESETS.items())
    add(
        "--preset",
        default=Options.preset,
        help=f"{presets}; search attacks in Linf alone, to choose settings (%(default)s)",
    )
    add("--epochs", type=int, metavar="N", help="of each training, instead of the preset's")
    add(
        "--shortest-side",
        type=int,
        metavar="N",
        help="voxels of the median case's shortest axis, instead of the preset's",
    )
    add(
        "--settings",
        metavar="JSON",
        help='a "lngswr" entry for the plans of all arms, such as \'{"noise_sigma_input": 0.5}\'',
    )
    add(
        "--variants",
        metavar="FILE",
        help='JSON with further arms, {"NAME": {"arm": "LNGSWR", "noise_sigma_input": 0.5}, ...}',
    )
    add(
        "--hold-out",
        type=int,
        metavar="FOLD",
        help="leave the validation cases of this fold untouched, to choose settings on the others",
    )
    add(
        "--equal-time",
        action="store_true",
        help="a second reading: slower arms again, for as long as vanilla took",
    )


def _add_evaluation(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--attacks",
        nargs="+",
        metavar="ATTACK",
        help="instead of the preset's, as for lngswr evaluate",
    )
    add(
        "--max-cases",
        type=int,
        metavar="N",
        help="validation cases to attack, instead of the preset's",
    )
    add_groups_option(command, "as for lngswr evaluate and compare")


def _add_overhead(benchmarks: Commands) -> None:
    command = benchmarks.add_parser(
        "overhead",
        help="train step, inference and peak memory relative to vanilla nnU-Net",
        description=(
            "Times a train step and an inference of LNG-SWR, plain and guided, LNG and SWR in "
            "turns beside vanilla nnU-Net's, on random data, and says where the rest goes."
        ),
    )
    add = command.add_argument
    add(
        "--plans",
        nargs="+",
        default=["2d", "3d"],
        metavar="PLAN",
        help="of 2d, 3d, 3d_large (128 x 128 x 128; for a GPU) (2d 3d)",
    )
    add("--repeats", type=int, default=9, help="turns of each arm after 3 that warm up (9)")
    add("--threads", type=int, default=2, help="CPU threads (2)")
    add_device(command, choices=("cpu", "cuda"), default="cpu")
    add(
        "--compile",
        dest="compiled",
        action="store_true",
        help="by torch.compile, as nnU-Net does on CUDA",
    )
    add(
        "-o",
        dest="output",
        type=given_text,
        metavar="FOLDER",
        help="write overhead.json and overhead.md there",
    )
    command.set_defaults(run=_overhead)


def _robustness(arguments: argparse.Namespace) -> int:
    from evaluation.compare import OUTPUTS
    from nnunetv2_lngswr.experiments.robustness import benchmark_robustness

    options = options_of(arguments)
    options["settings"] = settings_of(options["settings"] or "{}")
    if options["variants"] is not None:
        options["variants"] = read_json(input_file(options["variants"], "variants", "--variants"))
    for name in ("settings", "variants"):
        # null would be taken for an option that was not given
        if options[name] is None and getattr(arguments, name) is not None:
            raise UserError(f"--{name} must be a JSON object, got null")
    output = benchmark_robustness(
        options.pop("dataset"),
        options.pop("configuration"),
        options.pop("output"),
        say=say,
        **options,
    )
    if not arguments.dry_run:
        print(printable_page(output / "robustness.md"))
        written = ", ".join(("robustness.md", "robustness.json", *OUTPUTS))
        print(f"\nwritten to {output}: {written}")
    return 0


def _listed(values: Iterable[int]) -> str:
    return " ".join(map(str, values))


def _overhead(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.experiments.overhead import benchmark_overhead

    options = options_of(arguments)
    benchmark_overhead(options.pop("plans"), say=say, **options)
    return 0
