"""What an evaluation runs: the list of runs that the options mean for a model.

`plan_runs` is a pure function of the options and of what the model is like. Nothing here imports
torch before an attack's function is asked for.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.corruption_table import (
    SEVERITIES,
    corruption_names,
    get_corruption,
    inapplicable,
    inapplicable_of_mr,
)
from evaluation.options import L2, LINF, WORST, Options
from nnunetv2_lngswr.attacks.suites import SUITES, full_name, seeded_as
from nnunetv2_lngswr.attacks.terms import TORCHATTACKS_PREFIX
from nnunetv2_lngswr.utils.epsilon import budget_text
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import lookup
from nnunetv2_lngswr.utils.seeds import run_seed

if TYPE_CHECKING:
    from nnunetv2_lngswr.attacks import AttackSpec

NO_ATTACK = "none"
CORRUPTION = "shift"  # the kind in cases.csv and summary.json, and in seeds, of all versions
# in plain predictions; measured 2.2 (2D) and 1.7 (3D), step_over_predictor of
# benchmarks/results/2026-11-29-attack-cost-cpu.json
GRADIENT_COST = 2.0


@dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """One group of rows: the clean case, one attack at one budget, one corruption at one
    severity."""

    kind: str
    """'clean', 'attack' or 'shift', which is a corruption."""
    name: str
    """As reported, such as segpgd_l2."""
    function: str = ""
    """The attack's registered name, such as segpgd."""
    norm: str = ""
    """Of the attack's budget; empty for everything else."""
    epsilon: Fraction | None = None
    """The budget; None for clean, corruptions and attacks without one."""
    severity: int | None = None
    """Of a corruption, from 1."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keyword arguments of the attack."""
    forwards: int = 0
    """Rough evaluations of the whole case, the prediction that scores left out."""
    gradients: int = 0
    """Rough gradients of the whole case."""

    @property
    def epsilon_text(self) -> str:
        """Such as '8/255'; empty without a budget."""
        return "" if self.epsilon is None else budget_text(self.epsilon)

    @property
    def title(self) -> str:
        """Such as 'pgd_linf 8/255' or 'gamma 3'; unique among the runs of a case."""
        norm_is_named = self.kind != "attack" or self.function == self.name
        norm = self.norm if self.name == "noise" or not norm_is_named else ""
        severity = "" if self.severity is None else str(self.severity)
        return " ".join(p for p in (self.name, norm, self.epsilon_text, severity) if p)

    @property
    def cost(self) -> float:
        """In plain predictions, of which one scores the run."""
        return 1 + self.forwards + GRADIENT_COST * self.gradients

    def seed(self, seed: int, identifier: str) -> int:
        """For this case and attack: whatever the order of cases and parts, the same for all
        budgets."""
        return run_seed(seed, identifier, self.kind, seeded_as(self.name), self.norm)


class PlannedRuns(NamedTuple):
    """What is run and what of 'all' is not."""

    runs: list[EvaluationRun]
    """In the order of the report."""
    corruptions_left_out: dict[str, str]
    """{corruption: why}."""

    @property
    def of_mr(self) -> list[str]:
        """Corruptions of MR alone that are run."""
        names = dict.fromkeys(r.name for r in self.runs if r.kind == CORRUPTION)
        return [name for name in names if get_corruption(name).needs == "mr"]


def check_names(options: Options) -> None:
    """Look the names of attacks and corruptions up.

    Raises
    ------
    UserError
        A name that does not exist; the text names the nearest ones.
    """
    if NO_ATTACK in options.attacks and len(options.attacks) > 1:
        given = " ".join(options.attacks)
        raise UserError(f"{NO_ATTACK} stands alone among attacks, got {given} (--attacks)")
    for name in options.attacks:
        if name not in (*WORST, NO_ATTACK):
            _resolve(name)
    for name in _named_corruptions(options):
        get_corruption(name)


def needs_l2(attacks: Iterable[str]) -> bool:
    """Whether one of these, by its name alone, runs in L2; a suite does where L2 has budgets."""
    own = [name for name in attacks if full_name(name) not in (*WORST, *SUITES, NO_ATTACK)]
    return any(_resolve(name).norm == L2 for name in own)


def plan_runs(
    options: Options,
    *,
    ct: bool,
    two_dimensional: bool,
    mr: bool = False,
    regions: bool = False,
    has_encoder: bool = True,
    without: Mapping[str, str] | None = None,
) -> PlannedRuns:
    """The runs for a model. Corruptions that do not apply to it are left out of 'all'.

    Parameters
    ----------
    options
        The settings.
    ct
        Every channel is normalised as CT, so that files hold HU.
    two_dimensional
        The configuration sees slices.
    mr
        Every channel is MR, which has corruptions of its own.
    regions
        The model's labels are regions, which may overlap.
    has_encoder
        The networks have an `.encoder`, whose bottleneck ssah attacks.
    without
        {corruption: why it does not apply} besides.

    Raises
    ------
    UserError
        An unknown name, an attack without budgets in its norm, and what was asked for by name and
        does not apply.
    """
    check_names(options)
    attacks = [_resolve(name) for name in _expanded(options)]
    for attack in attacks:
        why = _why_not(
            attack.spec,
            options.epsilon_unit,
            two_dimensional=two_dimensional,
            regions=regions,
            has_encoder=has_encoder,
        )
        if why:
            raise UserError(f"attack {attack.name} {why}")
    clean, attacked = EvaluationRun(kind="clean", name="clean"), _all_attack_runs(options, attacks)
    left_out = inapplicable(ct=ct, two_dimensional=two_dimensional) | dict(without or {})
    corruptions, left_out = _corruption_runs(options, left_out, mr=mr)
    return PlannedRuns([clean, *attacked, *corruptions], left_out)


def _expanded(options: Options) -> list[str]:
    """The attacks to run, each once: a suite is its noise control and itself in every norm that
    has budgets."""
    names = []
    for name in options.attacks:
        if name in SUITES:
            norms = [norm for norm in (LINF, L2) if options.budgets(norm)]
            if not norms:
                raise UserError(
                    f"attack {name} has no budgets: give --epsilons or --epsilons-l2 in unit "
                    f"{options.epsilon_unit}"
                )
            names += ["noise", *(name if norm == LINF else f"{name}_{norm}" for norm in norms)]
        elif name not in (*WORST, NO_ATTACK):
            names.append(name)
    return list(dict.fromkeys(names))


class _Attack(NamedTuple):
    name: str  # as reported
    spec: AttackSpec
    norm: str


def _resolve(name: str) -> _Attack:
    from nnunetv2_lngswr.attacks import ATTACKS as known
    from nnunetv2_lngswr.attacks import get_attack

    if name.startswith(TORCHATTACKS_PREFIX):
        # torchattacks names its L2 attacks so
        norm = L2 if "L2" in name else LINF
        takes = {"steps"} & inspect.signature(_of_torchattacks(name)).parameters.keys()
        return _Attack(name, dataclasses.replace(get_attack(name), tunable=tuple(takes)), norm)
    base, _, suffix = name.rpartition("_")
    if name not in known and suffix in (LINF, L2) and base in known:
        spec = known[base]
        if len(spec.norms) > 1 and spec.uses_epsilon:
            return _Attack(name, spec, suffix)
    spec = get_attack(name)
    return _Attack(name, spec, spec.norms[0].value)


def _of_torchattacks(name: str) -> type:
    from nnunetv2_lngswr.attacks.torchattacks_adapter import classes

    return lookup(classes(), name.removeprefix(TORCHATTACKS_PREFIX), "torchattacks attack")


def _why_not(
    spec: AttackSpec, epsilon_unit: str, *, two_dimensional: bool, regions: bool, has_encoder: bool
) -> str:
    """Why an attack cannot run on a model; empty where it can."""
    if spec.needs_features and not has_encoder:
        return "needs a network with an .encoder, whose bottleneck it attacks"
    if not spec.name.startswith(TORCHATTACKS_PREFIX):
        return ""
    if not two_dimensional:
        return "works in 2D only, and this is a 3D configuration"
    if regions:
        return "needs exclusive labels (softmax), and this model has regions"
    return "" if epsilon_unit == "range" else f"needs epsilon in unit range, got {epsilon_unit}"


def _all_attack_runs(options: Options, attacks: Iterable[_Attack]) -> list[EvaluationRun]:
    """Attack by attack; noise in every norm that another attack with a budget runs in."""
    attacks = list(attacks)
    _refuse_idle_steps(options, attacks)
    bounded = [a for a in attacks if a.spec.name != "noise" and a.spec.uses_epsilon]
    norms = list(dict.fromkeys(a.norm for a in bounded))
    if not norms:
        norms = [n for n in (LINF, L2) if options.budgets(n)][:1] or [LINF]
    runs = []
    for attack in attacks:
        if attack.spec.needs_surrogate and options.surrogate is None:
            raise UserError(
                f"attack {attack.name} needs another model folder: --surrogate MODEL_FOLDER"
            )
        for norm in norms if attack.name == "noise" else [attack.norm]:
            runs += _attack_runs(options, attack._replace(norm=norm))
    return runs


def _refuse_idle_steps(options: Options, attacks: list[_Attack]) -> None:
    """Steps of an attack that takes none, and --steps N alone beside attacks of own steps."""
    taking = [a for a in attacks if "steps" in a.spec.tunable]
    for name in dict(options.steps_of):
        if name in {a.name for a in attacks} - {a.name for a in taking}:
            raise UserError(f"attack {name} takes no steps: leave --steps {name}=N out")
    own = [a.name for a in taking if a.spec.own_steps and a.name not in dict(options.steps_of)]
    if options.steps is not None and own and all(a.spec.own_steps for a in taking):
        raise UserError(
            f"--steps {options.steps} is of none of these attacks: give --steps {own[0]}="
            f"{options.steps}"
        )


def _attack_runs(options: Options, attack: _Attack) -> list[EvaluationRun]:
    name, spec, norm = attack
    steps = dict(options.steps_of).get(name, None if spec.own_steps else options.steps)
    given = {"steps": steps, "restarts": options.restarts, "temperature": options.temperature}
    arguments = {k: v for k, v in given.items() if v is not None and k in spec.tunable}
    forwards, gradients = _evaluations(spec, arguments)
    run = EvaluationRun(
        kind="attack",
        name=name,
        function=spec.name,
        options=arguments,
        forwards=forwards,
        gradients=gradients,
    )
    if not spec.uses_epsilon:
        return [run]
    budgets = options.budgets(norm)
    if not budgets:
        flag = "--epsilons" if norm == LINF else "--epsilons-l2"
        raise UserError(
            f"attack {name} works in {norm} and has no budgets: "
            f"give {flag} in unit {options.epsilon_unit}"
        )
    return [dataclasses.replace(run, norm=norm, epsilon=e) for e in budgets]


def _evaluations(spec: AttackSpec, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """(forwards, gradients) of the whole case that a run takes, roughly."""
    from nnunetv2_lngswr.attacks.pgd import pgd

    functions = [pgd, spec.function]
    if spec.name.startswith(TORCHATTACKS_PREFIX):
        functions.append(_of_torchattacks(spec.name))
    defaults = {k: p.default for f in functions for k, p in inspect.signature(f).parameters.items()}
    if spec.evaluations is not None:
        return spec.evaluations
    count = 1
    for name in set(spec.tunable) & {"steps", "restarts"}:
        count *= arguments.get(name, defaults[name])
    return (1, count) if spec.uses_gradients else (count, 0)


def _named_corruptions(options: Options) -> list[str]:
    return [c for c in options.corruptions if c not in ("all", "none")]


def _corruption_runs(
    options: Options, left_out: dict[str, str], *, mr: bool
) -> tuple[list[EvaluationRun], dict[str, str]]:
    """(the runs, {what of 'all' is left out: why})."""
    named, all_of_them = _named_corruptions(options), "all" in options.corruptions
    of_mr = inapplicable_of_mr(mr=mr)
    refused = left_out | of_mr
    for name in named:
        if name in refused:
            raise UserError(f"corruption {name} does not apply to this data set: {refused[name]}")
    applying = [c for c in corruption_names() if c not in refused]
    chosen = [c for c in applying if all_of_them or c in named]
    runs = [EvaluationRun(kind=CORRUPTION, name=c, severity=s) for c in chosen for s in SEVERITIES]
    # of other data sets 'all' never meant MR's own
    return runs, left_out | (of_mr if mr else {}) if all_of_them else {}
