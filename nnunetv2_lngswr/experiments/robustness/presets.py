"""How large a benchmark is: resolution, budget of the training, options of the evaluation."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.command_line import parse, split_steps
from evaluation.options import Options
from evaluation.protocol import check_names, needs_l2
from nnunetv2_lngswr.attacks.suites import full_name


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What one name of `--preset` means."""

    shortest_side: Mapping[int, int] = field(default_factory=dict)
    """Voxels that the median case keeps along its shortest axis, {2 or 3 dimensions: n}.

    Empty: native resolution."""
    batch_size: Mapping[int, int] = field(default_factory=dict)
    """{2 or 3 dimensions: n}; empty: nnU-Net's."""
    budget: Mapping[str, int]
    """The training's, as in the plans' "lngswr" entry."""
    evaluation: tuple[str, ...]
    """Options of lngswr evaluate."""

    @property
    def summary(self) -> str:
        """Resolution, length of the training and cases, in words."""
        resolution = "low resolution" if self.shortest_side else "native resolution"
        iterations = f"{self.budget['num_epochs']} x {self.budget['num_iterations_per_epoch']}"
        limit = "--max-cases"
        cases = (
            self.evaluation[self.evaluation.index(limit) + 1] if limit in self.evaluation else "all"
        )
        return f"{resolution}, {iterations} iterations, {cases} cases"


LOW_RESOLUTION = {2: 128, 3: 34}
SMALL_BATCHES = {2: 10, 3: 2}
SHORT_BUDGET = {
    "num_epochs": 10,
    "num_iterations_per_epoch": 50,
    "num_val_iterations_per_epoch": 5,
}

PRESETS = {
    # to choose settings: the training of cpu-small, and of its evaluation what they are chosen by
    "search": Preset(
        shortest_side=LOW_RESOLUTION,
        batch_size=SMALL_BATCHES,
        budget=SHORT_BUDGET,
        evaluation=(
            *("--attacks", full_name("worst")),
            *("--epsilons", "4/255", "8/255", "--epsilons-l2", "none"),
            *("--corruptions", "none"),
            *("--max-cases", "40", "--disable_tta"),
        ),
    ),
    # one fold of all arms within two hours on two cores
    "cpu-small": Preset(
        shortest_side=LOW_RESOLUTION,
        batch_size=SMALL_BATCHES,
        budget=SHORT_BUDGET,
        evaluation=(
            *("--attacks", full_name("worst"), "ssah_project"),
            *("--epsilons", "4/255", "8/255"),
            *("--epsilons-l2", "1/255", "2/255"),
            *("--steps", "ssah_project=30", "--max-cases", "20", "--disable_tta"),
        ),
    ),
    "gpu": Preset(
        budget={
            "num_epochs": 100,
            "num_iterations_per_epoch": 250,
            "num_val_iterations_per_epoch": 50,
        },
        evaluation=(
            *("--attacks", full_name("worst"), "ssah_project"),
            *("--epsilons", "1/255", "2/255", "4/255", "8/255"),
            *("--epsilons-l2", "0.25/255", "0.5/255", "1/255", "2/255"),
        ),
    ),
}


def evaluation_options(
    options: Sequence[str], attacks: Sequence[str] | None, max_cases: int | None
) -> tuple[str, ...]:
    """Return options of lngswr evaluate with other attacks, or another number of cases.

    Parameters
    ----------
    options
        As one would type them.
    attacks
        Instead of those in `options`; steps given for attacks that are left out go too.
    max_cases
        Instead of that in `options`.

    Raises
    ------
    UserError
        Unknown attacks.
    """
    changed = list(options)
    if attacks is not None:
        check_names(Options(attacks=tuple(attacks)))
        changed = [o for o in changed if not _is_steps_of_another(o, attacks)]
        changed = _without_option(changed, "--steps")
        if needs_l2(attacks):
            changed = _without_option(changed, "--epsilons-l2", "none")
        changed = _with_option(changed, "--attacks", *map(full_name, attacks))
    if max_cases is not None:
        changed = _with_option(changed, "--max-cases", str(max_cases))
    return tuple(changed)


def as_evaluate_reads(words: Sequence[str]) -> Options:
    """Return the options that `lngswr evaluate` makes of these words of its command line.

    Raises
    ------
    UserError
        As there, for values that it refuses.
    """
    read = parse(["-m", "MODEL_FOLDER", "-o", "OUT", *words], prog="lngswr evaluate")
    read |= split_steps(read["steps"])
    names = [f.name for f in dataclasses.fields(Options)]
    return Options(**{name: read[name] for name in names if name in read})


def _is_steps_of_another(option: str, attacks: Sequence[str]) -> bool:
    """Whether this is ATTACK=STEPS of an attack that is not run."""
    return bool(re.fullmatch(r"\w+=\d+", option)) and option.split("=")[0] not in attacks


def _without_option(options: Sequence[str], name: str, *values: str) -> list[str]:
    """Without it where it has just these values."""
    words = [name, *values]
    for start in range(len(options) - len(values)):
        end = start + len(words)
        ends = end == len(options) or options[end].startswith("--")
        if ends and [*options[start:end]] == words:
            return [*options[:start], *options[end:]]
    return list(options)


def _with_option(options: Sequence[str], name: str, *values: str) -> list[str]:
    start = options.index(name) if name in options else len(options)
    later = (i for i, o in enumerate(options) if i > start and o.startswith("--"))
    end = next(later, len(options))
    return [*options[:start], name, *values, *options[end:]]
