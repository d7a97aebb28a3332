"""What an evaluation may be told: every setting with its default, validated once.

The command line reads its defaults from here. Budgets are exact fractions. Nothing heavy is
imported, so that `--help` and a wrong value are answered at once; whether an attack or a corruption
of some name exists is asked in protocol.py.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.attacks import registry
from nnunetv2_lngswr.attacks.suites import full_name, suites_among
from nnunetv2_lngswr.attacks.terms import Norm, Unit, check_temperature
from nnunetv2_lngswr.utils.epsilon import budget_text, parse_budget
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.values import check_integer, shown

ATTACKS = ("worst",)
EPSILONS = ("1/255", "2/255", "4/255", "8/255")
EPSILONS_L2 = ("0.25/255", "0.5/255", "1/255", "2/255")
LINF, L2 = Norm.LINF.value, Norm.L2.value
UNITS = tuple(u.value for u in Unit)
WORST = ("worst_linf", "worst_l2")
OLD_NAMES = {"shifts": "corruptions"}
"""{old: new} of options; settings.json and summary.json keep the old ones."""

_BUDGETS = {"epsilons": EPSILONS, "epsilons_l2": EPSILONS_L2}
LIMITS = {
    "steps": (1, 100_000),
    "restarts": (1, 10_000),
    "window_batch_size": (1, 100_000),
    "graph_memory": (0, 10**9),
    "max_cases": (1, 10**9),
    "seed": (0, 2**128 - 1),
}
"""{integer option: (least, most)}: with more than that an evaluation does not end."""
SMALLEST_TILE_STEP = 0.05
MOST_WORKERS = 512

_SWITCHES = ("use_mirroring", "autocast", "save_adversarial", "trust_checkpoint")
_OTHER_STEPS = ("noise", *(spec.name for spec in registry.ATTACKS.values() if spec.own_steps))
_NEW_NAMES = {new: old for old, new in OLD_NAMES.items()}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that an evaluation may be told.

    Raises
    ------
    UserError
        A value outside the rules below; the text names the option, the rule and the value.
    """

    attacks: Sequence[str] = ATTACKS
    """Names of nnunetv2_lngswr.attacks. 'worst' is the newest standard suite, in every norm that
    has budgets, with the noise control. An attack of both norms runs in Linf, and in L2 with '_l2'
    appended (segpgd_l2); `noise` runs in every norm that another attack runs in. worst_linf and
    worst_l2 are always derived. 'none' alone: the clean case, and corruptions."""
    epsilons: Sequence[Fraction | float | str] | None = None
    """Linf budgets in `epsilon_unit`: numbers, Fractions or texts such as '8/255'. None: EPSILONS
    for the unit range, which the defaults exist for; none for other units."""
    epsilons_l2: Sequence[Fraction | float | str] | None = None
    """L2 budgets, root mean square per voxel, as `epsilons`. None: as there, from EPSILONS_L2;
    'none' or an empty list, here and there: none."""
    epsilon_unit: str = "range"
    """'range': of each channel after preprocessing; 'normalized': preprocessed units; 'original':
    units of the file, such as HU."""
    steps: int | None = None
    """Of the attacks that ascend a loss (pgd, segpgd, cospgd, apgd, transfer), up to 100,000. None
    takes each attack's own, and so do ssah and square, whose steps are other things. Nothing of a
    standard suite can be set."""
    steps_of: Mapping[str, int] | Sequence[tuple[str, int]] = ()
    """{attack: steps}, for one attack; each must be among `attacks`."""
    restarts: int | None = None
    """Of attacks with a random start, and draws of the noise control, of which the worst counts; up
    to 10,000. None takes each attack's own."""
    temperature: float | None = None
    """Of apgd_dice, in units of the case's mean decision margin. None takes its own."""
    seed: int = 0
    """Of everything random."""
    corruptions: Sequence[str] = ("all",)
    """Names of evaluation.corruptions, 'all' for those that apply to the data set; empty or 'none'
    for no corruptions."""
    surrogate: str | Path | None = None
    """Another model folder, on which `transfer` makes its perturbations; adds that attack."""
    folds: Sequence[int | str] | None = None
    """None takes those found."""
    checkpoint: str = "checkpoint_final.pth"
    """File name in each fold_X."""
    tile_step_size: float = 0.5
    """Of the sliding window, in windows: from 0.05 to 1."""
    use_mirroring: bool = True
    """Test-time augmentation along the axes that training mirrored."""
    device: str | None = None
    """'cpu', 'cuda', 'cuda:N' or 'mps'. None takes CUDA where there is one."""
    window_batch_size: int | None = None
    """Windows, mirrored copies included, per network call. None: 8 for 2D configurations, 1 for
    3D."""
    graph_memory: int = 2048
    """MiB that a gradient may spend on keeping the graphs of windows, so that it need not forward
    them twice; workers share it. Changes time and memory, no result."""
    autocast: bool = False
    """Attack in fp16 where autocast allows it, as nnU-Net predicts on CUDA; what the attacks find
    is scored as always."""
    max_cases: int | None = None
    """A seeded choice of so many cases. None: all."""
    nsd_tolerance: float = 2.0
    """Of the normalised surface Dice, in mm; in pixels for files without a spacing."""
    groups: str | Path | Mapping[str, str] | None = None
    """What intervals draw as one, such as a patient's slices: a regular expression, a CSV file or
    {case: group} (groups.py). None: what the conversion recorded, else each case by itself."""
    save_adversarial: bool = False
    """Write perturbed cases into OUT/adversarial, as float images where that is exact."""
    trust_checkpoint: bool = False
    """Load checkpoints that hold more than tensors and numbers, and import what plans.json names
    from anywhere, which runs their code."""

    def __post_init__(self) -> None:
        if self.epsilon_unit not in UNITS:
            units = ", ".join(UNITS)
            raise UserError(f"epsilon unit must be one of {units}, got {self.epsilon_unit!r}")
        self._set_names()
        self._set_budgets()
        self._set_steps_of()
        self._check_numbers()
        self._check_suite()
        self._check_texts()
        only_derived = bool(self.attacks) and not {*self.attacks} - {*WORST}
        if only_derived or not (self.attacks or {*self.corruptions} - {"none"}):
            raise UserError(
                "there is nothing to run: give --attacks (worst_linf and worst_l2 are only derived "
                "from others; the suite in L2 alone is worst-v2_l2; none: clean) or --corruptions"
            )

    @property
    def suite(self) -> str | None:
        """The standard suite that is run, such as 'worst-v2'; None where attacks are named alone.

        It decides which reports may be compared.
        """
        return next(iter(suites_among(self.attacks)), None)

    def budgets(self, norm: str) -> tuple[Fraction, ...]:
        """Of one norm, rising."""
        values = self.epsilons if norm == LINF else self.epsilons_l2
        return tuple(e for e in values or () if isinstance(e, Fraction))

    def record(self) -> dict[str, Any]:
        """JSON-ready, budgets as text, names as in settings.json and summary.json of all
        versions."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name, norm in zip(_BUDGETS, (LINF, L2)):
            values[name] = [budget_text(e) for e in self.budgets(norm)]
        values["steps_of"] = dict(self.steps_of)
        if self.temperature is None:
            del values["temperature"]  # as in folders from before it could be set
        values["groups"] = str(self.groups) if isinstance(self.groups, Path) else self.groups
        return {
            _NEW_NAMES.get(k, k): list(v) if isinstance(v, tuple) else v for k, v in values.items()
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Options:
        """The options that `record` was made of, up to the digits of budgets."""
        return cls(**{OLD_NAMES.get(k, k): v for k, v in record.items()})

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _set_names(self) -> None:
        for name in ("attacks", "corruptions"):
            self._set(name, _names(name, getattr(self, name)))
        self._set("attacks", tuple(dict.fromkeys(map(full_name, self.attacks))))
        if self.surrogate is None:
            return
        if not isinstance(self.surrogate, (str, Path)):
            raise UserError(f"surrogate must be a model folder, got {shown(self.surrogate)}")
        self._set("surrogate", str(self.surrogate))
        if not any(a.startswith("transfer") for a in self.attacks):
            self._set("attacks", (*self.attacks, "transfer"))

    def _set_budgets(self) -> None:
        in_range = self.epsilon_unit == "range"
        for name, default in _BUDGETS.items():
            given = getattr(self, name)
            if given is None:
                given = default if in_range else ()
            if isinstance(given, str) or not isinstance(given, Iterable):
                given = (given,)
            given = () if (given := tuple(given)) == ("none",) else given
            budgets = tuple(sorted({parse_budget(e) for e in given}))
            for low, high in zip(budgets, budgets[1:]):
                if budget_text(low) == budget_text(high):
                    raise UserError(
                        f"{name} must differ in their first nine digits, got {budget_text(low)} "
                        "twice"
                    )
            self._set(name, budgets)
        for name, norm in zip(_BUDGETS, (LINF, L2)):
            largest = float(max(self.budgets(norm), default=0))
            if in_range and largest > 1:
                raise UserError(
                    f"{name} are fractions of the intensity range, got {largest:g}; "
                    f"did you mean {largest:g}/255?"
                )

    def _set_steps_of(self) -> None:
        try:
            steps_of = {full_name(k): v for k, v in dict(self.steps_of).items()}
        except (AttributeError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"steps_of must be {{attack: steps}}, got {shown(self.steps_of)}"
            ) from None
        for name, value in steps_of.items():
            if name not in self.attacks:
                raise UserError(
                    f"steps are given for {name}, which is not among the attacks: "
                    f"{', '.join(self.attacks)}"
                )
            check_integer(f"steps of {name}", value, *LIMITS["steps"])
        self._set("steps_of", tuple(sorted(steps_of.items())))

    def _check_suite(self) -> None:
        others = {a for a in self.attacks if not suites_among([a])} - {*WORST}
        takers = {
            "steps": others - {*_OTHER_STEPS},
            "restarts": others,
            "temperature": {a for a in others if _takes_temperature(a)},
        }
        given = [n for n, of in takers.items() if not of and getattr(self, n) is not None]
        given += [f"steps of {name}" for name in suites_among(dict(self.steps_of))]
        if len(suites_among(self.attacks)) > 1:
            raise UserError(f"give one suite, got {' and '.join(suites_among(self.attacks))}")
        if self.suite and given:
            raise UserError(
                f"{' and '.join(given)} cannot be set: {self.suite} is fixed, so that its numbers "
                "can be compared; name the attack to set, such as --attacks apgd_dice --steps 10"
            )
        if "temperature" in given:
            its = ", ".join(self.attacks)
            raise UserError(f"temperature is of apgd_dice, which is not among the attacks: {its}")

    def _check_numbers(self) -> None:
        for name, limits in LIMITS.items():
            value = getattr(self, name)
            if value is not None or name in ("seed", "graph_memory"):
                check_integer(name, value, *limits)
        if self.temperature is not None:
            check_temperature(self.temperature)
            self._set("temperature", float(self.temperature))
        step, tolerance = self.tile_step_size, self.nsd_tolerance
        if not (_is_number(step) and 0 < step <= 1):
            raise UserError(f"step_size (tile_step_size) must be in (0, 1], got {shown(step)}")
        if step < SMALLEST_TILE_STEP:
            raise UserError(
                f"step_size (tile_step_size) must be at least {SMALLEST_TILE_STEP}, got {step}: "
                "the number of windows grows without end"
            )
        if not (_is_number(tolerance) and tolerance >= 0):
            raise UserError(f"nsd_tolerance must be >= 0, got {shown(tolerance)}")
        if tolerance == math.inf:
            raise UserError(f"nsd_tolerance must be finite, got {tolerance}: every surface fits it")
        # settings.json takes Python's own numbers only
        for name, value in (("tile_step_size", step), ("nsd_tolerance", tolerance)):
            self._set(name, value if type(value) in (int, float) else float(value))

    def _check_texts(self) -> None:
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be true or false, got {shown(getattr(self, name))}")
        if not (isinstance(self.checkpoint, str) and self.checkpoint):
            raise UserError(f"checkpoint must be a file name, got {shown(self.checkpoint)}")
        if not (self.device is None or isinstance(self.device, str)):
            raise UserError(f"device must be a text such as 'cpu', got {shown(self.device)}")
        if self.folds is not None:
            _check_folds(self.folds)
        if not isinstance(self.groups, (str, Path, Mapping, type(None))) or self.groups == "":
            raise UserError(f"groups must be a pattern or a CSV file, got {shown(self.groups)}")


def with_new_names(options: Mapping[str, Any], *, stacklevel: int = 3) -> dict[str, Any]:
    """Options with their old names replaced, each with a FutureWarning.

    Raises
    ------
    UserError
        An option given under both names.
    """
    renamed = dict(options)
    for old, new in OLD_NAMES.items():
        if old not in renamed:
            continue
        if new in renamed:
            raise UserError(f"{old} is the old name of {new}; give {new} only")
        warnings.warn(said_of_old_name(old, new), FutureWarning, stacklevel=stacklevel)
        renamed[new] = renamed.pop(old)
    return renamed


def said_of_old_name(old: str, new: str) -> str:
    return f"{old} is now called {new}; the old name goes on working"


def _takes_temperature(attack: str) -> bool:
    spec = registry.attack_of_report(attack)
    return spec is not None and "temperature" in spec.tunable


def _names(option: str, given: Any) -> tuple[str, ...]:
    """Each once, in their order."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Iterable):
        raise UserError(f"{option} must be names, got {shown(given)}")
    names = tuple(names)
    wrong = [n for n in names if not isinstance(n, str)]
    if wrong:
        raise UserError(f"{option} must be names, got {shown(wrong[0])} among them")
    return tuple(dict.fromkeys(names))


def _check_folds(given: Any) -> None:
    several = isinstance(given, Iterable) and not isinstance(given, str)
    folds = list(given) if several else [given]
    wrong = [f for f in folds if not _is_fold(f)]
    if wrong:
        named = ", ".join(f.strip() if isinstance(f, str) else shown(f) for f in wrong)
        raise UserError(f"folds must be numbers or 'all', got {named} (-f)")


def _is_fold(fold: Any) -> bool:
    if isinstance(fold, str):
        return fold == "all" or (fold.isascii() and fold.isdigit() and len(fold) < 10)
    return isinstance(fold, int) and not isinstance(fold, bool) and fold >= 0


def _is_number(value: Any) -> bool:
    """NaN included."""
    return isinstance(value, Real) and not isinstance(value, bool)
