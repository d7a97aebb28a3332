"""What an evaluation runs: the options with their defaults, and the list of runs they mean for a model.

Everything that changes a result is in `Options`, validated once; the command line reads its defaults from here. Budgets are exact fractions. This
module imports nothing heavy, so `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.utils.epsilon import budget_text, parse_budget
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.seeds import run_seed

ATTACKS = ("noise", "fgsm", "pgd_linf", "pgd_l2", "segpgd", "apgd", "ssah")
EPSILONS = ("1/255", "2/255", "4/255", "8/255")
EPSILONS_L2 = ("0.25/255", "0.5/255", "1/255", "2/255")
UNITS = ("range", "normalized", "original")
WORST = ("worst_linf", "worst_l2")
LINF, L2 = "linf", "l2"
OWN_STEPS = ("ssah", "ssah_project", "square")  # steps of Adam at a small rate, and queries


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that an evaluation may be told.

    `attacks`: names of nnunetv2_lngswr.attacks. An attack of both norms runs in Linf, with '_l2' appended (segpgd_l2) in L2; `noise` runs in
    every norm that another attack runs in; worst_linf and worst_l2 are always derived. `epsilons`, `epsilons_l2`: numbers, Fractions or
    strings such as '8/255', in `epsilon_unit`; L2 as root mean square per voxel. None: the defaults above, which exist for the unit
    range only. `steps`: of the attacks that ascend a loss (pgd, segpgd, cospgd, apgd, transfer); None takes each attack's own, and so do
    ssah and square, whose steps are other things. `steps_of`: {attack: steps}, for one attack. `restarts`: None takes each attack's own. `shifts`: names, 'all' for those that apply to the data set, or
    empty. `folds`: None takes those found. `device`: None takes CUDA where there is one. `surrogate`: another model folder, for
    `transfer`, which is then added. `nsd_tolerance`: mm (pixels for files without a spacing). `max_cases`: a seeded choice. `window_batch_size`: windows, mirrored
    copies included, per network call; None takes 8 for 2D configurations and 1 for 3D ones. `autocast`: attacks in fp16 where autocast allows it,
    as nnU-Net predicts on CUDA; what they find is scored as always.
    ValueError for values outside these rules.
    """

    attacks: Sequence[str] = ATTACKS
    epsilons: Sequence[Fraction | float | str] | None = None
    epsilons_l2: Sequence[Fraction | float | str] | None = None
    epsilon_unit: str = "range"
    steps: int | None = None
    steps_of: Mapping[str, int] | Sequence[tuple[str, int]] = ()
    restarts: int | None = None
    seed: int = 0
    shifts: Sequence[str] = ("all",)
    surrogate: str | Path | None = None
    folds: Sequence[int | str] | None = None
    checkpoint: str = "checkpoint_final.pth"
    tile_step_size: float = 0.5
    use_mirroring: bool = True
    device: str | None = None
    window_batch_size: int | None = None
    autocast: bool = False
    max_cases: int | None = None
    nsd_tolerance: float = 2.0
    save_adversarial: bool = False
    trust_checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.epsilon_unit not in UNITS:
            raise UserError(
                f"epsilon unit must be one of {', '.join(UNITS)}, got {self.epsilon_unit!r}"
            )
        for name in ("attacks", "shifts"):
            value = getattr(self, name)
            value = (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))
            object.__setattr__(self, name, value)
        if self.surrogate is not None:
            object.__setattr__(self, "surrogate", str(self.surrogate))
        if self.surrogate is not None and not any(a.startswith("transfer") for a in self.attacks):
            object.__setattr__(self, "attacks", (*self.attacks, "transfer"))
        for name, default in (("epsilons", EPSILONS), ("epsilons_l2", EPSILONS_L2)):
            given = getattr(self, name)
            if given is None:
                given = default if self.epsilon_unit == "range" else ()
            given = (given,) if isinstance(given, (str, int, float, Fraction)) else given
            object.__setattr__(self, name, tuple(sorted({parse_budget(e) for e in given})))
        steps_of = tuple(sorted(dict(self.steps_of).items()))
        object.__setattr__(self, "steps_of", steps_of)
        for name, value in steps_of:
            if name not in self.attacks:
                raise UserError(
                    f"steps are given for {name}, which is not among the attacks: {', '.join(self.attacks)}"
                )
            if not isinstance(value, int) or value < 1:
                raise UserError(f"steps of {name} must be an integer >= 1, got {value}")
        for name, least in (
            ("steps", 1),
            ("restarts", 1),
            ("window_batch_size", 1),
            ("max_cases", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise UserError(f"{name} must be an integer >= {least}, got {value}")
        if not 0 < self.tile_step_size <= 1:
            raise UserError(
                f"step_size (tile_step_size) must be in (0, 1], got {self.tile_step_size}"
            )
        if not self.nsd_tolerance >= 0:
            raise UserError(f"nsd_tolerance must be >= 0, got {self.nsd_tolerance}")
        if self.epsilon_unit == "range":
            for name in ("epsilons", "epsilons_l2"):
                if any(e > 1 for e in getattr(self, name)):
                    largest = max(getattr(self, name))
                    raise UserError(
                        f"{name} are fractions of the intensity range, got {float(largest):g}; did you mean {float(largest):g}/255?"
                    )
        if not ({*self.attacks} - {*WORST} or {*self.shifts} - {"none"}):
            raise UserError(
                "there is nothing to run: give --attacks (worst_linf and worst_l2 are only derived from others) or --shifts"
            )

    def record(self) -> dict[str, Any]:
        """JSON-ready, budgets as text."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("epsilons", "epsilons_l2"):
            values[name] = [budget_text(e) for e in values[name]]
        values["steps_of"] = dict(self.steps_of)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """One row group: `kind` clean, attack or shift. `name`: as reported; `function`: the attack's registered name. `epsilon`: None for clean,
    shifts and attacks without a budget. `options`: keyword arguments of the attack. `cost`: rough gradient evaluations, for progress and
    estimates; `forwards`, `gradients`: evaluations of the whole case, the scoring prediction left out."""

    kind: str
    name: str
    function: str = ""
    norm: str = ""
    epsilon: Fraction | None = None
    severity: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    forwards: int = 0
    gradients: int = 0

    @property
    def epsilon_text(self) -> str:
        return "" if self.epsilon is None else budget_text(self.epsilon)

    @property
    def title(self) -> str:
        extra = (
            self.norm
            if self.kind == "attack" and self.function != self.name or self.name == "noise"
            else ""
        )
        return " ".join(
            str(p)
            for p in (
                self.name,
                extra,
                self.epsilon_text,
                "" if self.severity is None else self.severity,
            )
            if p != ""
        )

    @property
    def cost(self) -> float:
        """In units of one plain prediction: a gradient costs about 3.5 of them, and each run is scored by one."""
        return 1 + self.forwards + 3.5 * self.gradients

    def seed(self, seed: int, identifier: str) -> int:
        """For this case and attack; budgets and severities share it, so that curves differ by strength and not by luck. Independent of the
        order of the cases and of parts."""
        return run_seed(seed, identifier, self.kind, self.name, self.norm)


def check_names(options: Options) -> None:
    """ValueError, with the nearest names, for attacks and shifts that do not exist."""
    from evaluation.corruptions import get_corruption

    for name in options.attacks:
        if name not in WORST:
            _resolve(name)
    for name in options.shifts:
        if name not in ("all", "none"):
            get_corruption(name)


def plan_runs(
    options: Options,
    *,
    ct: bool,
    two_dimensional: bool,
    regions: bool = False,
    has_encoder: bool = True,
) -> tuple[list[EvaluationRun], dict[str, str], dict[str, str]]:
    """(runs in the order of the report, {shift left out: why}, {attack left out: why}). `ct`, `two_dimensional`: as shifts.inapplicable; `regions`,
    `has_encoder`: of the model. What does not apply is left out of the defaults. ValueError for unknown attacks and shifts (with
    the nearest names), attacks without budgets in their norm, and attacks and shifts asked for by name that do not apply."""
    from evaluation.corruptions import SEVERITIES, corruption_names, inapplicable

    check_names(options)
    runs = [EvaluationRun(kind="clean", name="clean")]
    resolved = [_resolve(a) for a in options.attacks if a not in WORST]
    attacks_left_out = {}
    for name, spec, norm in list(resolved):
        reason = _why_not(
            spec,
            options.epsilon_unit,
            two_dimensional=two_dimensional,
            regions=regions,
            has_encoder=has_encoder,
        )
        if reason and options.attacks != ATTACKS:
            raise UserError(f"attack {name} {reason}")
        if reason:
            attacks_left_out[name] = reason
            resolved.remove((name, spec, norm))
    norms = list(
        dict.fromkeys(
            norm for _, spec, norm in resolved if spec.name != "noise" and spec.uses_epsilon
        )
    )
    if not norms:
        norms = [
            n for n, budgets in ((LINF, options.epsilons), (L2, options.epsilons_l2)) if budgets
        ][:1] or [LINF]
    for name, spec, norm in resolved:
        if spec.needs_surrogate and options.surrogate is None:
            raise UserError(f"attack {name} needs another model folder: --surrogate MODEL_FOLDER")
        for n in norms if name == "noise" else [norm]:
            runs += _attack_runs(options, name, spec, n)
    named = [s for s in options.shifts if s not in ("all", "none")]
    left_out = inapplicable(ct=ct, two_dimensional=two_dimensional)
    for name in named:
        if name in left_out:
            raise UserError(f"shift {name} does not apply to this data set: {left_out[name]}")
    chosen = [
        s
        for s in corruption_names()
        if s in named or ("all" in options.shifts and s not in left_out)
    ]
    runs += [EvaluationRun(kind="shift", name=s, severity=v) for s in chosen for v in SEVERITIES]
    return runs, left_out if "all" in options.shifts else {}, attacks_left_out


def _why_not(
    spec, epsilon_unit: str, *, two_dimensional: bool, regions: bool, has_encoder: bool
) -> str:
    """Why an attack cannot run on a model; empty where it can."""
    if spec.needs_features and not has_encoder:
        return "needs a network with an .encoder, whose bottleneck it attacks"
    if not spec.name.startswith("torchattacks:"):
        return ""
    if not two_dimensional:
        return "works in 2D only, and this is a 3D configuration"
    if regions:
        return "needs exclusive labels (softmax), and this model has regions"
    return "" if epsilon_unit == "range" else f"needs epsilon in unit range, got {epsilon_unit}"


def _attack_runs(options: Options, name: str, spec, norm: str) -> Iterable[EvaluationRun]:
    steps = dict(options.steps_of).get(name, None if spec.name in OWN_STEPS else options.steps)
    arguments = {
        k: v
        for k, v in (("steps", steps), ("restarts", options.restarts))
        if v is not None and k in spec.tunable
    }
    forwards, gradients = _evaluations(spec, arguments)
    shared = {
        "kind": "attack",
        "name": name,
        "function": spec.name,
        "options": arguments,
        "forwards": forwards,
        "gradients": gradients,
    }
    if not spec.uses_epsilon:
        return [EvaluationRun(**shared)]
    budgets, flag = (
        (options.epsilons, "--epsilons") if norm == LINF else (options.epsilons_l2, "--epsilons-l2")
    )
    if not budgets:
        raise UserError(
            f"attack {name} works in {norm} and has no budgets: give {flag} in unit {options.epsilon_unit}"
        )
    return [EvaluationRun(**shared, norm=norm, epsilon=e) for e in budgets]


def _resolve(name: str) -> tuple[str, Any, str]:
    """(reported name, AttackSpec, norm)."""
    from nnunetv2_lngswr.attacks import ATTACKS as known
    from nnunetv2_lngswr.attacks import get_attack
    from nnunetv2_lngswr.attacks.terms import TORCHATTACKS_PREFIX
    from nnunetv2_lngswr.utils.names import lookup

    if name.startswith(TORCHATTACKS_PREFIX):
        from nnunetv2_lngswr.attacks.torchattacks_adapter import classes

        lookup(classes(), name.removeprefix(TORCHATTACKS_PREFIX), "torchattacks attack")
        # torchattacks names its L2 attacks so
        return name, get_attack(name), L2 if "L2" in name else LINF
    base, _, suffix = name.rpartition("_")
    if (
        name not in known
        and suffix in (LINF, L2)
        and base in known
        and len(known[base].norms) > 1
        and known[base].uses_epsilon
    ):
        return name, known[base], suffix
    spec = get_attack(name)
    return name, spec, spec.norms[0].value


def _evaluations(spec, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """(forwards, gradients) of the whole case that a run takes, roughly, for estimates."""
    import inspect

    from nnunetv2_lngswr.attacks.pgd import pgd

    defaults = {
        k: p.default
        for f in (pgd, spec.function)
        for k, p in inspect.signature(f).parameters.items()
    }
    count = 1
    for name in set(spec.tunable) & {"steps", "restarts"}:
        count *= arguments.get(name, defaults[name])
    return (count, 0) if spec.name in ("noise", "square") else (1, count)
