"""The command `lngswr`: parses, calls, prints. It imports what a command needs only when that command runs."""

import argparse
import functools
import sys

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.utils.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, 1 (doctor found something wrong, a conversion skipped something), 2 (bad input, a full
    disk) or 130 (Ctrl-C); one line on stderr for 2 and 130."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv and argv[0] in PASSED_ON:
            return PASSED_ON[argv[0]](argv[1:])
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)
    except ValueError as error:
        said, status = str(error), 2
    except OSError as error:
        said, status = (
            f"{error}; what is done is kept: once that is mended the same call goes on",
            2,
        )
    except KeyboardInterrupt:
        said, status = "interrupted; what is done is kept: the same call goes on", 130
    # only here, where the exception no longer keeps a progress bar open on this line
    print(f"lngswr: {said}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lngswr", description="LNG-SWR for nnU-Net v2.")
    parser.add_argument("--version", action="version", version=f"lngswr {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser(
        "register", help="make nnU-Net's commands find the LNG-SWR trainers and planners"
    )
    command.set_defaults(run=_register)

    command = commands.add_parser("unregister", help="take them out of nnU-Net again")
    command.set_defaults(run=_unregister)

    command = commands.add_parser(
        "doctor", help="show what is installed, where, and what is wrong; changes nothing"
    )
    command.set_defaults(run=_doctor)

    command = commands.add_parser(
        "demo", help="plan, train, predict and evaluate on phantom data, in about five minutes"
    )
    command.add_argument(
        "-o",
        dest="output",
        metavar="FOLDER",
        default="lngswr_demo",
        help="folder for everything it writes (lngswr_demo)",
    )
    command.add_argument(
        "--sets",
        nargs="+",
        choices=("2d", "3d"),
        default=["2d", "3d"],
        help="which phantom sets (both)",
    )
    command.add_argument(
        "-device",
        choices=("cpu", "cuda", "mps"),
        default="cpu",
        help="as for nnU-Net's commands (cpu)",
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="start over instead of going on where an earlier call stopped",
    )
    command.set_defaults(run=_demo)

    command = commands.add_parser(
        "benchmark",
        help="robustness of arms trained at one equal budget; overhead beside vanilla nnU-Net",
    )
    benchmarks = command.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    command = benchmarks.add_parser(
        "robustness",
        help="arms trained through nnU-Net, attacked and shifted, in one table",
        description=(
            "Trains vanilla nnU-Net and each ARM, a trainer by its short name, through nnU-Net at one equal budget, evaluates each on the validation "
            "cases of its fold, and writes robustness.md and robustness.json. The same call goes on where an earlier one stopped, and takes further arms, folds and seeds."
        ),
    )
    command.add_argument(
        "-d",
        "--data-set",
        dest="dataset",
        required=True,
        metavar="DATASET",
        help="full name in nnUNet_raw, such as Dataset611_ThyroidUS",
    )
    command.add_argument(
        "-c",
        dest="configuration",
        required=True,
        metavar="CONFIGURATION",
        help="2d, 3d_fullres, ...",
    )
    command.add_argument(
        "-o",
        dest="output",
        required=True,
        metavar="FOLDER",
        help="folder for everything it writes; the same one goes on",
    )
    command.add_argument(
        "--arms",
        nargs="+",
        metavar="ARM",
        help="of vanilla (always), DA5, LNG, SWR, LNGSWR, AT, LNGSWRAT (all seven)",
    )
    command.add_argument(
        "--folds", nargs="+", type=int, default=[0], help="folds of splits_final.json (0)"
    )
    command.add_argument(
        "--seeds", nargs="+", type=int, default=[0], help="seeds of the training (0)"
    )
    command.add_argument(
        "--preset",
        default="cpu-small",
        help="cpu-small (low resolution, 10 x 50 iterations, 20 cases), search (the same training, 40 cases, PGD Linf only, no shifts; to choose settings) or gpu (native resolution, 100 x 250 iterations, all cases) (cpu-small)",
    )
    command.add_argument(
        "--settings",
        metavar="JSON",
        help='a "lngswr" entry for the plans of all arms, such as \'{"noise_sigma_input": 0.5}\'',
    )
    command.add_argument(
        "--variants",
        metavar="FILE",
        help='JSON with further arms, {"NAME": {"arm": "LNGSWR", "noise_sigma_input": 0.5}, ...}',
    )
    command.add_argument(
        "--hold-out",
        type=int,
        metavar="FOLD",
        help="leave the validation cases of this fold untouched, to choose settings on the others",
    )
    command.add_argument(
        "--attacks",
        nargs="+",
        metavar="ATTACK",
        help="instead of the preset's, as for lngswr evaluate",
    )
    command.add_argument(
        "--max-cases",
        type=int,
        metavar="N",
        help="validation cases to attack (the preset's: cpu-small 20, search 40, gpu all)",
    )
    command.add_argument(
        "--equal-time",
        action="store_true",
        help="a second reading: slower arms again, for as long as vanilla took",
    )
    command.add_argument(
        "-device",
        choices=("cpu", "cuda", "mps"),
        help="as for nnU-Net's commands (cuda where there is one)",
    )
    command.add_argument("--dry-run", action="store_true", help="print the commands")
    command.set_defaults(run=_benchmark_robustness)

    command = benchmarks.add_parser(
        "overhead",
        help="train step, inference and peak memory relative to vanilla nnU-Net",
        description=(
            "Times a train step and an inference of LNG-SWR, LNG and SWR in turns beside vanilla nnU-Net's, on random data, and says where the rest goes."
        ),
    )
    command.add_argument(
        "--plans",
        nargs="+",
        default=["2d", "3d"],
        metavar="PLAN",
        help="of 2d, 3d, 3d_large (128 x 128 x 128; for a GPU) (2d 3d)",
    )
    command.add_argument(
        "--repeats", type=int, default=9, help="turns of each arm after one that warms up (9)"
    )
    command.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    command.add_argument(
        "-device", choices=("cpu", "cuda"), default="cpu", help="as for nnU-Net's commands (cpu)"
    )
    command.add_argument(
        "--compile",
        dest="compiled",
        action="store_true",
        help="by torch.compile, as nnU-Net does on CUDA",
    )
    command.add_argument(
        "-o", dest="output", metavar="FOLDER", help="write overhead.json and overhead.md there"
    )
    command.set_defaults(run=_benchmark_overhead)

    command = commands.add_parser(
        "warm-start", help="make a vanilla nnU-Net checkpoint usable as -pretrained_weights"
    )
    command.add_argument(
        "source", metavar="VANILLA.pth", help="checkpoint of a vanilla nnU-Net v2 training"
    )
    command.add_argument(
        "destination",
        metavar="OUT.pth",
        help="file to write: the same backbone with identity LNG-SWR parts",
    )
    command.set_defaults(run=_warm_start)

    _add_convert_dataset(commands)
    _add_splits(commands)
    _add_paper(commands)

    # listed for the help only
    commands.add_parser(
        "evaluate",
        help="robustness of a model folder: attacks and corruptions (lngswr evaluate --help)",
        add_help=False,
    )
    commands.add_parser(
        "compare",
        help="several evaluations in one table, paired by case (lngswr compare --help)",
        add_help=False,
    )
    return parser


def _add_convert_dataset(commands) -> None:
    from nnunetv2_lngswr.datasets.options import (
        CONSENSUS,
        CROP_MM,
        FORMS,
        VOTERS,
        DatasetSpec,
        ImageOptions,
        LidcOptions,
    )

    command = commands.add_parser(
        "convert-dataset",
        help="downloaded data sets to nnU-Net raw format, with splits and a manifest",
    )
    kinds = command.add_subparsers(title="data sets", metavar="DATASET", required=True)

    def kind(
        name: str, help: str, dataset_id: int | None, dataset_name: str
    ) -> argparse.ArgumentParser:
        parser = kinds.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}. Exit status 1: done, but something was skipped (see manifest.json).",
        )
        add = parser.add_argument
        add("-i", dest="input", metavar="FOLDER", required=True, help="the download")
        add(
            "-o",
            dest="output",
            metavar="NNUNET_RAW",
            required=True,
            help="nnU-Net's raw folder; DatasetXXX_NAME is made in it",
        )
        shown = "required" if dataset_id is None else dataset_id
        add(
            "-d",
            dest="dataset_id",
            metavar="ID",
            type=int,
            default=dataset_id,
            required=dataset_id is None,
            help=f"number of the data set ({shown})",
        )
        add("--name", default=dataset_name, help=f"its name ({dataset_name})")
        add(
            "--folds",
            type=int,
            default=DatasetSpec.folds,
            help="folds of splits_final.json (%(default)s)",
        )
        add("--seed", type=int, default=DatasetSpec.seed, help="of the folds (%(default)s)")
        add(
            "--overwrite",
            action="store_true",
            help="convert anew what was converted with other settings",
        )
        add("--disable_progress_bar", action="store_true", help="no progress bar")
        return parser

    parser = kind("lidc", "LIDC-IDRI: DICOM series and the readers' XML", 620, "LIDC")
    add = parser.add_argument
    add(
        "--annotations",
        metavar="FOLDER",
        help="folder with the XML files, if they are not in the download's folders",
    )
    add(
        "--form",
        choices=FORMS,
        default=LidcOptions.form,
        help="2D slices with nodules, 3D crops around them, or whole scans (%(default)s)",
    )
    add(
        "--consensus",
        choices=CONSENSUS,
        default=LidcOptions.consensus,
        help="voxels that so many readers outlined; majority: at least half; one: see --reader (%(default)s)",
    )
    add(
        "--reader",
        type=int,
        default=LidcOptions.reader,
        metavar="N",
        help="which reading session, for --consensus one (%(default)s)",
    )
    add(
        "--voters",
        choices=VOTERS,
        default=LidcOptions.voters,
        help="readers that count: all of the scan, or those who outlined the nodule, as in pylidc (%(default)s)",
    )
    add(
        "--small",
        action="store_true",
        help="nodules under 3 mm too, as balls of 3 mm around the reader's point",
    )
    add(
        "--crop-mm",
        type=float,
        default=LidcOptions.crop_mm,
        metavar="MM",
        help=f"edge of crops ({CROP_MM:g}); slices are cut too if it is given",
    )
    add(
        "--min-pixels",
        type=int,
        default=LidcOptions.min_pixels,
        metavar="N",
        help="leave out slices with less nodule (%(default)s)",
    )
    add("--keep-empty", action="store_true", help="use scans without a nodule")
    parser.set_defaults(run=_convert_lidc)

    def image_options(parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add(
            "--mask-threshold",
            type=int,
            default=ImageOptions.mask_threshold,
            metavar="N",
            help="masks are what is at least N bright, for lossy files; default: one value besides 0",
        )
        add("--keep-empty", action="store_true", help="use images whose mask is empty")
        add(
            "--luminance",
            action="store_true",
            help="make colour images grey instead of skipping them",
        )

    parser = kind("tnscui", "TN-SCUI2020: image/, mask/ and train.csv", 610, "TNSCUI2020")
    image_options(parser)
    parser.set_defaults(run=_convert_tnscui)

    parser = kind("image-folder", "folders of images and masks, such as BUSI", None, "Images")
    add = parser.add_argument
    add("--masks", metavar="FOLDER", help="folder with the masks; default: that of the images")
    add(
        "--mask-pattern",
        default=ImageOptions.mask_pattern,
        metavar="REGEX",
        help="a mask's name without suffix, with the image's name in parentheses; a mask of the image's own name in --masks always counts (%(default)s)",
    )
    add(
        "--label",
        default="foreground",
        metavar="NAME",
        help="name of what is segmented (%(default)s)",
    )
    add(
        "--channel",
        default="image",
        metavar="NAME",
        help="name of the image's channel, which nnU-Net chooses its normalisation by (%(default)s)",
    )
    add(
        "--group-pattern",
        metavar="REGEX",
        help="what in an image's path tells the patient, in parentheses; default: each image by itself",
    )
    image_options(parser)
    parser.set_defaults(run=_convert_image_folder)


def _add_splits(commands) -> None:
    from nnunetv2_lngswr.datasets.options import MAX_DISTANCE, DatasetSpec

    command = commands.add_parser(
        "splits",
        help="splits_final.json that keeps patients together; refuses near-duplicates over a fold border",
    )
    add = command.add_argument
    add(
        "-i",
        dest="input",
        metavar="DATASET_FOLDER",
        required=True,
        help="data set in nnU-Net raw format",
    )
    add(
        "-o",
        dest="output",
        metavar="FILE",
        help="file to write; default: splits_final.json in that folder, from where nnU-Net's planner takes it",
    )
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pattern", metavar="REGEX", help="what in a case's name tells the patient, in parentheses"
    )
    source.add_argument("--csv", metavar="FILE", help="table with a row per case")
    add(
        "--case-column",
        default="case",
        metavar="NAME",
        help="its column of case names (%(default)s)",
    )
    add(
        "--group-column",
        default="patient",
        metavar="NAME",
        help="its column of patients (%(default)s)",
    )
    add("--folds", type=int, default=DatasetSpec.folds, help="(%(default)s)")
    add("--seed", type=int, default=DatasetSpec.seed, help="(%(default)s)")
    add(
        "--max-distance",
        type=int,
        default=MAX_DISTANCE,
        metavar="BITS",
        help="images count as near-duplicates if their perceptual hashes differ in at most so many of 256 bits (%(default)s)",
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument("--join", action="store_true", help="put near-duplicates into one fold")
    what.add_argument(
        "--allow-near-duplicates", action="store_true", help="report them and write all the same"
    )
    add("--disable_progress_bar", action="store_true", help="no progress bar")
    command.set_defaults(run=_splits)


def _add_paper(commands) -> None:
    from nnunetv2_lngswr.experiments.paper import DATASET_IDS, EPOCHS, Protocol

    command = commands.add_parser(
        "paper", help="the paper's protocol on converted data: train, attack, table; resumable"
    )
    add = command.add_argument
    add("dataset", choices=tuple(DATASET_IDS), help="which data set's protocol")
    numbers = ", ".join(f"{name} {number}" for name, number in DATASET_IDS.items())
    add(
        "-d",
        dest="dataset_id",
        metavar="ID",
        type=int,
        help=f"number of the converted data ({numbers})",
    )
    add(
        "-c",
        dest="configuration",
        default=Protocol.configuration,
        metavar="CONFIGURATION",
        help="nnU-Net's configuration (%(default)s)",
    )
    add(
        "-f",
        dest="folds",
        nargs="+",
        type=int,
        default=list(Protocol.folds),
        metavar="FOLD",
        help="folds (all five)",
    )
    add(
        "-p",
        dest="plans",
        default=Protocol.plans,
        metavar="PLANS",
        help="plans in nnUNet_preprocessed (%(default)s)",
    )
    add(
        "-o",
        dest="output",
        metavar="FOLDER",
        help="folder for evaluations and table (lngswr_paper_DATASET)",
    )
    add(
        "-device",
        choices=("cpu", "cuda", "mps"),
        default=Protocol.device,
        help="as for nnU-Net's commands (cuda where there is one)",
    )
    add(
        "--epochs",
        type=int,
        choices=EPOCHS,
        default=Protocol.epochs,
        help="a short budget in place of nnU-Net's",
    )
    add(
        "--steps",
        type=int,
        default=Protocol.steps,
        metavar="N",
        help="of the attacks, as for lngswr evaluate",
    )
    add(
        "--max-cases",
        type=int,
        default=Protocol.max_cases,
        metavar="N",
        help="attack a seeded choice of N cases",
    )
    add(
        "--disable_tta",
        dest="use_mirroring",
        action="store_false",
        help="no mirroring while attacking",
    )
    add("--dry-run", action="store_true", help="print the commands, run nothing, write nothing")
    command.set_defaults(run=_paper)


def _paper(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.experiments.paper import DATASET_IDS, Protocol, run_paper

    if arguments.dataset_id is None:
        arguments.dataset_id = DATASET_IDS[arguments.dataset]
    arguments.folds = tuple(arguments.folds)
    if arguments.device is None and not arguments.dry_run:
        import torch

        # nnU-Net's commands take cuda unless told otherwise
        arguments.device = None if torch.cuda.is_available() else "cpu"
    output = arguments.output or f"lngswr_paper_{arguments.dataset}"
    table = run_paper(
        _take(Protocol, arguments),
        output,
        dry_run=arguments.dry_run,
        say=functools.partial(print, flush=True),
    )
    if not arguments.dry_run:
        print(f"table: {table}")
    return 0


def _convert_lidc(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.datasets.lidc import ENDING, convert_lidc
    from nnunetv2_lngswr.datasets.options import LidcOptions

    options = _take(LidcOptions, arguments)
    target = _target(arguments, channel="CT", ending=ENDING)
    return _report(
        convert_lidc(
            arguments.input,
            arguments.output,
            target,
            annotations=arguments.annotations,
            options=options,
            **_how(arguments),
        )
    )


def _convert_tnscui(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.datasets.image_folder import ENDING
    from nnunetv2_lngswr.datasets.options import ImageOptions
    from nnunetv2_lngswr.datasets.tnscui import convert_tnscui

    target = _target(arguments, channel="ultrasound", ending=ENDING)
    return _report(
        convert_tnscui(
            arguments.input,
            arguments.output,
            target,
            options=_take(ImageOptions, arguments),
            **_how(arguments),
        )
    )


def _convert_image_folder(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.datasets.image_folder import ENDING, convert_image_folder
    from nnunetv2_lngswr.datasets.options import ImageOptions

    target = _target(arguments, channel=arguments.channel, ending=ENDING, label=arguments.label)
    return _report(convert_image_folder(arguments.input, arguments.output, target, masks=arguments.masks, group_pattern=arguments.group_pattern,
                                        options=_take(ImageOptions, arguments), **_how(arguments)))  # fmt: skip


def _take(options: type, arguments: argparse.Namespace):
    """The options that the command has; the others keep their defaults."""
    import dataclasses

    return options(
        **{
            f.name: getattr(arguments, f.name)
            for f in dataclasses.fields(options)
            if hasattr(arguments, f.name)
        }
    )


def _target(arguments: argparse.Namespace, *, channel: str, ending: str, label: str = "nodule"):
    from nnunetv2_lngswr.datasets.options import DatasetSpec

    return DatasetSpec(dataset_id=arguments.dataset_id, name=arguments.name, channel=channel, label=label, file_ending=ending,
                  folds=arguments.folds, seed=arguments.seed)  # fmt: skip


def _how(arguments: argparse.Namespace) -> dict[str, bool]:
    return {"overwrite": arguments.overwrite, "progress": not arguments.disable_progress_bar}


def _report(done, shown: int = 20) -> int:
    """Prints what a conversion did. 0, or 1 if something was skipped."""
    counts = done.counts
    print(
        f"{done.folder}: {counts['used']} used, {counts['left out']} left out, {counts['skipped']} skipped; {done.converted} units converted now, {done.kept} before"
    )
    for entry in done.skipped[:shown]:
        print(f"skipped: {entry.source}: {entry.reason}", file=sys.stderr)
    if counts["skipped"] > shown:
        print(
            f"... and {counts['skipped'] - shown} more, all of them in {done.folder / 'manifest.json'}",
            file=sys.stderr,
        )
    if done.split_problem:
        print(f"no splits_final.json: {done.split_problem}", file=sys.stderr)
    return 1 if counts["skipped"] else 0


def _splits(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from nnunetv2_lngswr.datasets import near_duplicates, splits
    from nnunetv2_lngswr.datasets.conversion import write_if_changed

    images = splits.cases_of(arguments.input)
    if arguments.pattern is not None:
        groups = splits.groups_by_pattern(images, arguments.pattern)
    else:
        groups = splits.groups_by_csv(
            images, arguments.csv, arguments.case_column, arguments.group_column
        )
    pairs = near_duplicates.near_duplicates(
        images,
        groups,
        max_distance=arguments.max_distance,
        progress=not arguments.disable_progress_bar,
    )
    folds = splits.make_folds(
        near_duplicates.join_groups(groups, pairs) if arguments.join else groups,
        folds=arguments.folds,
        seed=arguments.seed,
    )
    found = set(near_duplicates.leaks(folds, pairs))
    for pair in pairs:
        where = "over a fold border" if pair in found else "in one fold"
        print(
            f"near-duplicates {where}: {pair.a} ({groups[pair.a]}) and {pair.b} ({groups[pair.b]}), {pair.distance} of 256 bits",
            file=sys.stderr,
        )
    if found and not arguments.allow_near_duplicates:
        raise UserError(f"{len(found)} pairs of near-duplicates lie over a fold border, nothing was written: look at them, then --join puts each "
                         "pair into one fold, --allow-near-duplicates writes the splits as they are")  # fmt: skip
    output = (
        Path(arguments.output) if arguments.output else Path(arguments.input) / "splits_final.json"
    )
    write_if_changed(output, splits.splits_text(folds))
    sizes = ", ".join(str(len(fold["val"])) for fold in folds)
    print(
        f"wrote {output}: {len(groups)} cases of {len(set(groups.values()))} groups in {len(folds)} folds of {sizes}"
    )
    return 0


def _register(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.installation.register import register

    said = {
        "registered": "registered",
        "updated": "updated to this version",
        "unchanged": "already registered, nothing to do",
    }
    for change in register():
        print(f"{said[change.action]}: {change.path}")
    return 0


def _unregister(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.installation.register import unregister

    said = {"removed": "removed", "absent": "not registered, nothing to remove"}
    for change in unregister():
        print(f"{said[change.action]}: {change.path}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.installation.register import doctor

    findings = doctor()
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        print(f"{finding.state:5}  {finding.topic:{width}}  {finding.value}")
        if finding.fix:
            print(f"{'':5}  {'':{width}}  -> {finding.fix}")
    wrong = [finding.topic for finding in findings if finding.state == "wrong"]
    print(f"wrong: {', '.join(wrong)}" if wrong else "nothing needed is wrong")
    return 1 if wrong else 0


def _demo(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.experiments.demo import run_demo

    say = functools.partial(print, flush=True)
    run_demo(
        arguments.output, arguments.sets, arguments.device, overwrite=arguments.overwrite, say=say
    )
    return 0


def _benchmark_robustness(arguments: argparse.Namespace) -> int:
    import json

    from nnunetv2_lngswr.experiments.robustness import ARMS, benchmark_robustness
    from nnunetv2_lngswr.utils.files import read_json

    options = {k: v for k, v in vars(arguments).items() if k != "run"}
    options["arms"] = options["arms"] or list(ARMS)
    try:
        options["settings"] = json.loads(options["settings"] or "{}")
    except json.JSONDecodeError as error:
        raise UserError(f"--settings must be JSON: {error}") from None
    if options["variants"] is not None:
        options["variants"] = read_json(options["variants"])
    output = benchmark_robustness(
        options.pop("dataset"),
        options.pop("configuration"),
        options.pop("output"),
        say=functools.partial(print, flush=True),
        **options,
    )
    if not arguments.dry_run:
        print((output / "robustness.md").read_text().rstrip())
        print(
            f"\nwritten to {output}: robustness.md, robustness.json, compare.md, compare.csv, compare.png"
        )
    return 0


def _benchmark_overhead(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.experiments.overhead import benchmark_overhead

    options = {k: v for k, v in vars(arguments).items() if k != "run"}
    benchmark_overhead(options.pop("plans"), say=functools.partial(print, flush=True), **options)
    return 0


def _warm_start(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.training.warm_start import warm_start_checkpoint

    warm_start_checkpoint(arguments.source, arguments.destination)
    print(
        f"wrote {arguments.destination}; train from it with -pretrained_weights {arguments.destination}"
    )
    return 0


def _evaluate(argv: list[str]) -> int:
    from evaluation.robust import main as evaluate

    return evaluate(argv, prog="lngswr evaluate")


def _compare(argv: list[str]) -> int:
    from evaluation.compare import main as compare

    return compare(argv, prog="lngswr compare")


# commands whose options belong to a module of evaluation, which also answers their --help
PASSED_ON = {"evaluate": _evaluate, "compare": _compare}


if __name__ == "__main__":
    sys.exit(main())
