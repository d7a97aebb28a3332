"""What a benchmark may be told, with the defaults, each said once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.options import LIMITS
from nnunetv2_lngswr.experiments.robustness.arms import ARMS, equal_for_all
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.values import check_integer


@dataclass(frozen=True, kw_only=True)
class Options:
    """Keyword arguments of `benchmark_robustness`.

    Raises
    ------
    UserError
        Folds or seeds that are not different numbers >= 0, settings or variants that are no
        objects, settings that are the preset's to choose, a fold that is held out and one of the
        folds, no case is left.
    """

    arms: Sequence[str] = tuple(ARMS)
    """Names of ARMS; the baseline is always one of them."""
    folds: Sequence[int] = (0,)
    """Of splits_final.json."""
    seeds: Sequence[int] = (0,)
    """Of the trainings."""
    preset: str = "cpu-small"
    """A name in PRESETS."""
    epochs: int | None = None
    """Instead of the preset's; as many iterations each."""
    shortest_side: int | None = None
    """Voxels of the median case's shortest axis, instead of the preset's."""
    settings: Mapping[str, Any] | None = None
    """A "lngswr" entry for the plans of all arms (but for seed and budget)."""
    variants: Mapping[str, Mapping[str, Any]] | None = None
    """Further arms with settings of their own, {name: {"arm": one of ARMS, **"lngswr" entry}}."""
    hold_out: int | None = None
    """A fold whose validation cases nothing here trains on or is evaluated on.

    So that settings can be chosen before that fold is looked at."""
    attacks: Sequence[str] | None = None
    """Instead of the preset's."""
    max_cases: int | None = None
    """Instead of the preset's."""
    groups: str | None = None
    """What intervals and tests take as one, such as a patient's slices: a regular expression or a
    CSV file, as `lngswr evaluate` and `lngswr compare` have it."""
    equal_time: bool = False
    """A second reading: slower arms again, for as many epochs as the baseline's time allows."""
    device: str | None = None
    """None takes cuda where there is one."""
    dry_run: bool = False
    """Say the commands, run nothing."""

    def __post_init__(self):
        _check_numbers("folds", self.folds)
        _check_numbers("seeds", self.seeds)
        if self.hold_out is not None:
            _check_numbers("hold_out", [self.hold_out])
        for name in ("settings", "variants"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, Mapping):
                raise UserError(f"{name} must be an object, got {given!r} (--{name})")
        equal = equal_for_all(self.settings or {})
        if equal:
            raise UserError(
                f"settings must not set {', '.join(equal)}: the budget is that of the preset and "
                "--epochs, seeds are given by --seeds"
            )
        if self.hold_out is not None and self.hold_out in self.folds:
            raise UserError(f"fold {self.hold_out} is held out: choose other --folds")
        if self.max_cases is not None:
            check_integer("max_cases", self.max_cases, *LIMITS["max_cases"])
        for name, least in (("epochs", 1), ("shortest_side", 8)):
            given = getattr(self, name)
            if given is not None and given < least:
                option = name.replace("_", "-")
                raise UserError(f"{name} must be {least} or more, got {given} (--{option})")


def _check_numbers(name: str, values: Sequence[Any]) -> None:
    numbers = [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0]
    if not numbers or len(set(numbers)) < len(values):
        got = " ".join(map(str, values)) or "none"
        option = name.replace("_", "-")
        raise UserError(f"{name} must be different numbers >= 0, got {got} (--{option})")
