"""What `lngswr robustify` may be told, with the defaults, each said once. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.options import Options as EvaluationOptions
from evaluation.protocol import check_names, plan_runs
from nnunetv2_lngswr.attacks.suites import full_name
from nnunetv2_lngswr.training.settings import (
    ADVERSARIAL_KEY,
    PLANS_KEY,
    check_entry,
    refuse_stray_start,
)
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.values import is_number, shown

TRAINERS = {False: "nnUNetTrainerAT", True: "nnUNetTrainerLNGSWRAT"}
"""By whether the network has LNG-SWR's parts."""
BUDGET = ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch")
WARM_START = "warm_start"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Keyword arguments of `robustify`.

    Raises
    ------
    UserError
        A value that its field does not allow; the text names the option, the rule and the value.
    """

    folds: Sequence[int | str] | None = None
    """None takes those that the model has."""
    trainer: str | None = None
    """One of TRAINERS; None takes the one whose network is the model's."""
    share: float = 0.1
    """Of the model's own budget."""
    settings: Mapping[str, Any] | None = None
    """A "lngswr" entry over the one that is made, such as another epsilon."""
    configuration: str | None = None
    """Which model of a zip file that holds several; a folder of another one is refused."""
    checkpoint: str = "checkpoint_final.pth"
    """File name in each fold_X: what is started from."""
    images: str | Path | None = None
    """Image folder of the evaluations; None: the validation cases of the folds."""
    labels: str | Path | None = None
    """Label folder, likewise."""
    attacks: Sequence[str] = ("worst",)
    """As in `lngswr evaluate`."""
    epsilons: Sequence[str] = ("4/255", "8/255")
    """As in `lngswr evaluate`."""
    epsilons_l2: Sequence[str] = ("none",)
    """As in `lngswr evaluate`."""
    max_cases: int = 20
    """As in `lngswr evaluate`."""
    groups: str | None = None
    """As in `lngswr evaluate`."""
    skip_evaluation: bool = False
    """Train only."""
    device: str | None = None
    """None takes cuda where there is one."""
    trust_checkpoint: bool = False
    """Load checkpoints that hold more than tensors and numbers, and import what the plans name from
    anywhere, which runs their code."""
    progress: bool = True
    """Tell how far the evaluations are."""
    dry_run: bool = False
    """Say the commands, write nothing."""

    def __post_init__(self) -> None:
        if self.trainer not in (None, *TRAINERS.values()):
            known = " or ".join(TRAINERS.values())
            raise UserError(f"trainer must be {known}, got {shown(self.trainer)} (-tr)")
        if not (is_number(self.share) and 0 < self.share <= 1):
            raise UserError(f"share must be above 0 and at most 1, got {shown(self.share)}")
        self._check_settings()
        if (self.images is None) != (self.labels is None):
            given = "-l" if self.images is None else "-i"
            raise UserError(f"give -i and -l, or neither for the validation cases; got {given}")
        self._check_evaluation()

    def _check_settings(self) -> None:
        if self.settings is None:
            return
        if not isinstance(self.settings, Mapping):
            raise UserError(f"settings must be an object, got {shown(self.settings)} (--settings)")
        refuse_stray_start({PLANS_KEY: self.settings})
        check_entry(self.settings)
        own = sorted({*BUDGET, WARM_START} & set(self.settings))
        if own:
            raise UserError(
                f"settings must not set {', '.join(own)}: the start is the given model, and the "
                "budget a share of its own (--share)"
            )

    def _check_evaluation(self) -> None:
        asked = EvaluationOptions(
            attacks=tuple(self.attacks),
            epsilons=tuple(self.epsilons),
            epsilons_l2=tuple(self.epsilons_l2),
            corruptions=(),
            max_cases=self.max_cases,
            folds=self.folds,
            checkpoint=self.checkpoint,
        )
        check_names(asked)
        # attacks that have no budgets are told now, not after the training
        plan_runs(asked, ct=False, two_dimensional=True, regions=False, has_encoder=True)

    @property
    def evaluation(self) -> list[str]:
        """Options of `lngswr evaluate`, but for model, folds and device."""
        words = ["--attacks", *map(full_name, self.attacks), "--epsilons", *self.epsilons]
        words += ["--epsilons-l2", *self.epsilons_l2, "--corruptions", "none"]
        words += ["--max-cases", str(self.max_cases), "--disable_tta"]
        if self.images is not None and self.labels is not None:
            words += ["-i", str(Path(self.images).absolute())]
            words += ["-l", str(Path(self.labels).absolute())]
        return [*words, *self.grouping]

    @property
    def grouping(self) -> list[str]:
        """The option of `lngswr evaluate` and `lngswr compare` that says what belongs together."""
        return [] if self.groups is None else [f"--groups={self.groups}"]

    @property
    def adversarial(self) -> Mapping[str, Any]:
        """What the settings say of adversarial training."""
        return (self.settings or {}).get(ADVERSARIAL_KEY, {})
