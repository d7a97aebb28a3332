"""The options of `lngswr evaluate`, which is `python -m evaluation.robust`, and what it prints.

Defaults come from options.py. Nothing here imports torch or NumPy, so that `--help` and a misspelt
option are answered at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation import conditions, groups, model_options
from evaluation.corruption_table import corruption_names
from evaluation.options import EPSILONS, EPSILONS_L2, OLD_NAMES, Options, said_of_old_name
from nnunetv2_lngswr.attacks.registry import attack_names
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.option_types import given_text
from nnunetv2_lngswr.utils.values import shown

PROG = "python -m evaluation.robust"
_STEPS_DIGITS = 30  # Options says how many there may be
_DEFAULTS = Options()


def parse(argv: Sequence[str], *, prog: str = PROG) -> dict[str, Any]:
    """The arguments of a command line, named as `evaluate` names them, and 'dry_run'.

    --steps still has to be split, by `split_steps`, and the model be found, by
    `model_options.take_model_folder`. --help and unknown options end the process, as always with
    argparse.
    """
    # argparse takes '-1/255' for a flag; with a space in front it reaches our message
    words = [f" {a}" if a[:1] == "-" and a[1:2].isdigit() else a for a in argv]
    return vars(build_parser(prog).parse_args(words))


def split_steps(given: Sequence[str] | None) -> dict[str, Any]:
    """--steps 20 ssah=200 as the options `steps` and `steps_of`.

    Raises
    ------
    UserError
        A word that is neither N nor NAME=N, and steps that are given twice.
    """
    steps_of: dict[str, int] = {}
    for word in given or ():
        name, equals, number = word.strip().rpartition("=")
        is_number = number.isascii() and number.isdigit() and len(number) <= _STEPS_DIGITS
        if not is_number or bool(name) != bool(equals):
            raise UserError(f"steps must be N or NAME=N, got {shown(word)}")
        if name in steps_of:
            raise UserError(
                f"steps{name and ' of '}{name} are given twice: {' '.join(given or ())}"
            )
        steps_of[name] = int(number)
    return {"steps": steps_of.pop("", None), "steps_of": steps_of}


def build_parser(prog: str = PROG) -> argparse.ArgumentParser:
    """The parser; its arguments are named as `evaluate` names them."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Attack and corrupt what an nnU-Net v2 model folder deploys, and report how "
        "far Dice falls. Results of the same settings in OUT are resumed: finished cases are not "
        "repeated.",
    )
    _add_model_and_cases(parser)
    attacks = parser.add_argument_group("attacks")
    _add_attacks_and_budgets(attacks)
    _add_steps_and_surrogate(attacks)
    others = parser.add_argument_group("corruptions and work")
    _add_corruptions_and_scores(others)
    _add_work(others)
    conditions.add_option(others)
    return parser


def print_estimate(found: Mapping[str, Any]) -> None:
    """What `evaluation.estimate` found, for --dry-run."""
    share = ", ".join(found["share"][:8]) + (" ..." if len(found["share"]) > 8 else "")
    print(f"{len(found['cases'])} cases, {len(found['share'])} of them in this part: {share}")
    print(f"{len(found['runs'])} runs per case: {', '.join(found['runs'])}")
    if found["finished"]:
        print(f"{len(found['finished'])} cases are finished already")
    for name, why in found["shifts_left_out"].items():
        print(f"left out: {name} ({why})")
    print(
        f"first case on {found['device']}: a prediction takes {found['prediction_seconds']:.2f} s, "
        f"a gradient {found['gradient_seconds']:.2f} s"
    )
    print(
        f"estimate, if all cases are like it: {_duration(found['seconds_per_case'])} per case, "
        f"{_duration(found['seconds'])} for this part"
    )
    print(f"peak memory: {found['peak_memory_bytes'] / 2**30:.1f} GiB")


class _OldName(argparse.Action):
    """An option by its old name: taken, with one line on stderr."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        new = f"--{self.dest}"
        print(f"{parser.prog}: {said_of_old_name(str(option_string), new)}", file=sys.stderr)
        setattr(namespace, self.dest, values)


def _add_folders(parser: argparse.ArgumentParser) -> None:
    model_options.add_options(parser)
    add = parser.add_argument
    add(
        "-i",
        dest="images",
        type=given_text,
        metavar="IMAGES",
        help="image folder (<case>_0000.ext); without -i and -l: each fold's validation cases, "
        "each by the model that has not seen it",
    )
    add("-l", dest="labels", type=given_text, metavar="LABELS", help="label folder (<case>.ext)")
    add(
        "-o",
        dest="output_folder",
        type=given_text,
        required=True,
        metavar="OUT",
        help="output folder",
    )


def _add_model_and_cases(parser: argparse.ArgumentParser) -> None:
    _add_folders(parser)
    add = parser.add_argument
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="folds; default: those found")
    _add_how_it_predicts(parser)


def _add_how_it_predicts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-chk",
        dest="checkpoint",
        type=given_text,
        default=_DEFAULTS.checkpoint,
        help="checkpoint name; default: %(default)s",
    )
    add(
        "-step_size",
        dest="tile_step_size",
        type=float,
        default=_DEFAULTS.tile_step_size,
        help="sliding-window step; default: %(default)s",
    )
    add(
        "-device",
        dest="device",
        type=given_text,
        default=_DEFAULTS.device,
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
        type=given_text,
        metavar="FOLDER",
        help="segmentations of the previous stage, for a cascade",
    )
    add("--disable_tta", dest="use_mirroring", action="store_false", help="no mirroring")


def _add_attacks_and_budgets(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--attacks",
        nargs="*",
        default=_DEFAULTS.attacks,
        metavar="NAME",
        help="default: worst, the newest standard suite, in every norm that has budgets, beside "
        f"noise; also {', '.join(attack_names())}, torchattacks:NAME; NAME_l2 runs one in L2; "
        "worst_linf and worst_l2 are always reported; none: the clean case, and corruptions",
    )
    add(
        "--epsilons",
        nargs="*",
        metavar="E",
        help=f"Linf budgets, such as 4/255, or none; default: {' '.join(EPSILONS)} of the range",
    )
    add(
        "--epsilons-l2",
        nargs="*",
        metavar="E",
        help="L2 budgets, root mean square per voxel, or none; "
        f"default: {' '.join(EPSILONS_L2)} of the range",
    )
    add(
        "--epsilon-unit",
        default=_DEFAULTS.epsilon_unit,
        metavar="UNIT",
        help="range (of each channel, after preprocessing), normalized (preprocessed units) or "
        "original (units of the file, HU); default: %(default)s",
    )


def _add_steps_and_surrogate(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--steps",
        nargs="+",
        metavar="N",
        help="of pgd, segpgd, cospgd, apgd and transfer; NAME=N for one attack, also ssah and "
        "square; default: each attack's own; a standard suite has fixed ones",
    )
    add(
        "--restarts",
        type=int,
        default=_DEFAULTS.restarts,
        help="of attacks with a random start, and draws of the noise control, of which the worst "
        "counts; default: each attack's own",
    )
    add(
        "--temperature",
        type=float,
        default=_DEFAULTS.temperature,
        metavar="T",
        help="of apgd_dice, in units of the case's mean decision margin; default: its own",
    )
    seed = _DEFAULTS.seed
    add("--seed", type=int, default=seed, help="of everything random; default: %(default)s")
    add(
        "--surrogate",
        type=given_text,
        metavar="MODEL_FOLDER",
        help="model on which transfer makes its perturbations; adds that attack",
    )
    add(
        "--save-adversarial",
        action="store_true",
        help="write perturbed cases into OUT/adversarial, as float images where that is exact",
    )


def _add_corruptions_and_scores(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--corruptions",
        nargs="*",
        default=_DEFAULTS.corruptions,
        metavar="NAME",
        help="default: all that apply to the data set; none: no corruptions; "
        f"of {', '.join(corruption_names())}",
    )
    for old, new in OLD_NAMES.items():
        add(
            f"--{old}",
            dest=new,
            nargs="*",
            default=argparse.SUPPRESS,
            action=_OldName,
            help=argparse.SUPPRESS,
        )
    groups.add_option(group, "what the conversion recorded")
    add(
        "--nsd-tolerance",
        type=float,
        default=_DEFAULTS.nsd_tolerance,
        metavar="MM",
        help="of the normalised surface Dice; default: %(default)s",
    )


def _add_work(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--max-cases",
        type=int,
        default=_DEFAULTS.max_cases,
        metavar="N",
        help="a seeded choice of N cases",
    )
    add(
        "--window-batch-size",
        type=int,
        default=_DEFAULTS.window_batch_size,
        metavar="N",
        help="windows (mirrored copies included) per network call: memory against speed; "
        "default: 8 (2D) or 1 (3D)",
    )
    add(
        "--graph-memory",
        type=int,
        default=_DEFAULTS.graph_memory,
        metavar="MIB",
        help="what a gradient may spend on keeping windows' graphs, instead of forwarding them "
        "twice; workers share it; changes no result; default: %(default)s",
    )
    add(
        "--autocast",
        action="store_true",
        help="attack in mixed precision, as nnU-Net predicts on CUDA: faster there; losses stay in "
        "fp32; default: all in fp32",
    )
    add(
        "--workers",
        type=int,
        metavar="N",
        help="processes that share the cases and the CPU threads; default: one per core for 2D on "
        "a CPU, else 1",
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
        help="load checkpoints that hold more than tensors and numbers, and import what plans.json "
        "names from anywhere; runs their code",
    )
    add(
        "--disable_progress_bar",
        dest="progress",
        action="store_false",
        help="no progress bar",
    )


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.0f} s"
