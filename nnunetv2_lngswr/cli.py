"""The command `lngswr`: parses, calls, prints. It imports what a command needs only when that command runs."""
import argparse
import functools
import sys

from nnunetv2_lngswr import __version__


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, 1 (doctor found something wrong) or 2 (bad input, one line on stderr)."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["evaluate"]:  # its options belong to evaluation.robust, which also answers `lngswr evaluate --help`
            return _evaluate(argv[1:])
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)
    except ValueError as error:
        print(f"lngswr: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lngswr", description="LNG-SWR for nnU-Net v2.")
    parser.add_argument("--version", action="version", version=f"lngswr {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("register", help="make nnU-Net's commands find the LNG-SWR trainers and planners")
    command.set_defaults(run=_register)

    command = commands.add_parser("unregister", help="take them out of nnU-Net again")
    command.set_defaults(run=_unregister)

    command = commands.add_parser("doctor", help="show what is installed, where, and what is wrong; changes nothing")
    command.set_defaults(run=_doctor)

    command = commands.add_parser("demo", help="plan, train, predict and evaluate on phantom data, in about five minutes")
    command.add_argument("-o", dest="output", metavar="FOLDER", default="lngswr_demo", help="folder for everything it writes (lngswr_demo)")
    command.add_argument("--sets", nargs="+", choices=("2d", "3d"), default=["2d", "3d"], help="which phantom sets (both)")
    command.add_argument("-device", choices=("cpu", "cuda", "mps"), default="cpu", help="as for nnU-Net's commands (cpu)")
    command.add_argument("--overwrite", action="store_true", help="start over instead of going on where an earlier call stopped")
    command.set_defaults(run=_demo)

    command = commands.add_parser("benchmark", help="train arms at one equal budget and attack them")
    benchmarks = command.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    command = benchmarks.add_parser("robustness", help="arms trained through nnU-Net, attacked and shifted, in one table")
    command.add_argument("-d", "--data-set", dest="dataset", required=True, metavar="DATASET", help="full name in nnUNet_raw, such as Dataset611_ThyroidUS")
    command.add_argument("-c", dest="configuration", required=True, metavar="CONFIGURATION", help="2d, 3d_fullres, ...")
    command.add_argument("-o", dest="output", required=True, metavar="FOLDER", help="folder for everything it writes; the same one goes on")
    command.add_argument("--arms", nargs="+", metavar="ARM", help="of vanilla (always), DA5, LNG, SWR, LNGSWR, AT, LNGSWRAT (all)")
    command.add_argument("--folds", nargs="+", type=int, default=[0], help="folds of splits_final.json (0)")
    command.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds of the training (0)")
    command.add_argument("--preset", default="cpu-small", help="cpu-small (low resolution, minutes per arm) or gpu (native resolution) (cpu-small)")
    command.add_argument("--settings", metavar="JSON", help='a "lngswr" entry for the plans of all arms, such as \'{"noise_sigma_input": 0.5}\'')
    command.add_argument("--equal-time", action="store_true", help="a second reading: slower arms again, for as long as vanilla took")
    command.add_argument("-device", choices=("cpu", "cuda", "mps"), default="cpu", help="as for nnU-Net's commands (cpu)")
    command.add_argument("--dry-run", action="store_true", help="print the commands")
    command.set_defaults(run=_benchmark_robustness)

    command = commands.add_parser("warm-start", help="make a vanilla nnU-Net checkpoint usable as -pretrained_weights")
    command.add_argument("source", metavar="VANILLA.pth", help="checkpoint of a vanilla nnU-Net v2 training")
    command.add_argument("destination", metavar="OUT.pth", help="file to write: the same backbone with identity LNG-SWR parts")
    command.set_defaults(run=_warm_start)

    # listed for the help only: main() hands everything after it to evaluation.robust
    commands.add_parser("evaluate", help="robustness of a model folder: attacks and corruptions (lngswr evaluate --help)", add_help=False)
    return parser


def _register(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.register import register

    said = {"registered": "registered", "updated": "updated to this version", "unchanged": "already registered, nothing to do"}
    for change in register():
        print(f"{said[change.action]}: {change.path}")
    return 0


def _unregister(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.register import unregister

    said = {"removed": "removed", "absent": "not registered, nothing to remove"}
    for change in unregister():
        print(f"{said[change.action]}: {change.path}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.register import doctor

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
    from nnunetv2_lngswr.demo import run_demo

    say = functools.partial(print, flush=True)
    run_demo(arguments.output, arguments.sets, arguments.device, overwrite=arguments.overwrite, say=say)
    return 0


def _benchmark_robustness(arguments: argparse.Namespace) -> int:
    import json

    from nnunetv2_lngswr.benchmark import ARMS, benchmark_robustness

    options = {k: v for k, v in vars(arguments).items() if k != "run"}
    options["arms"] = options["arms"] or list(ARMS)
    try:
        options["settings"] = json.loads(options["settings"] or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"--settings must be JSON: {error}") from None
    output = benchmark_robustness(options.pop("dataset"), options.pop("configuration"), options.pop("output"), say=functools.partial(print, flush=True), **options)
    if not arguments.dry_run:
        print((output / "robustness.md").read_text().rstrip())
        print(f"\nwritten to {output}: robustness.md, robustness.json, compare.md, compare.csv, compare.png")
    return 0


def _warm_start(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.checkpoints import warm_start_checkpoint

    warm_start_checkpoint(arguments.source, arguments.destination)
    print(f"wrote {arguments.destination}; train from it with -pretrained_weights {arguments.destination}")
    return 0


def _evaluate(argv: list[str]) -> int:
    from evaluation.robust import main as evaluate

    return evaluate(argv) or 0


if __name__ == "__main__":
    sys.exit(main())
