"""What `lngswr benchmark transfer` may be told, with the defaults, each said once.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.options import Options as EvaluationOptions
from evaluation.protocol import check_names
from nnunetv2_lngswr.attacks.suites import full_name
from nnunetv2_lngswr.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Keyword arguments of `benchmark_transfer`.

    Raises
    ------
    UserError
        A value that its field does not allow; the text names the option, the rule and the value.
    """

    folds: Sequence[int | str] | None = None
    """Each by itself, on every data set; None takes those that a model has."""
    checkpoint: str = "checkpoint_final.pth"
    """File name in each fold_X."""
    attacks: Sequence[str] = ("worst",)
    """As in `lngswr evaluate`; 'none': the clean case, and corruptions."""
    epsilons: Sequence[str] = ("4/255", "8/255")
    """As in `lngswr evaluate`."""
    epsilons_l2: Sequence[str] = ("none",)
    """As in `lngswr evaluate`."""
    corruptions: Sequence[str] = ("none",)
    """As in `lngswr evaluate`."""
    max_cases: int | None = None
    """A seeded choice of so many cases of every data set, of a model's own for each fold; None:
    all."""
    groups: Sequence[str] | None = None
    """What belongs together: one pattern or table as in `lngswr evaluate` for all data sets, and
    'DATASET=PATTERN' for single ones. None: those that the evaluations were made with."""
    map_labels: Sequence[str] = ()
    """'NAME=OTHER': two names of labels that mean the same."""
    allow_other_channels: bool = False
    """Take data sets whose channels nnU-Net would normalise otherwise."""
    trust_checkpoint: bool = False
    """Load checkpoints that hold more than tensors and numbers, and import what the plans name from
    anywhere, which runs their code."""
    device: str | None = None
    """None takes cuda where there is one."""
    dry_run: bool = False
    """Check everything and say the commands, write nothing."""

    def __post_init__(self) -> None:
        check_names(self.asked)
        _ = self.label_pairs

    @property
    def asked(self) -> EvaluationOptions:
        """What the evaluations are told, as they read it."""
        return EvaluationOptions(
            attacks=tuple(self.attacks),
            epsilons=tuple(self.epsilons),
            epsilons_l2=tuple(self.epsilons_l2),
            corruptions=tuple(self.corruptions),
            max_cases=self.max_cases,
            folds=self.folds,
            checkpoint=self.checkpoint,
            use_mirroring=False,
        )

    @property
    def evaluation(self) -> list[str]:
        """Options of `lngswr evaluate`, but for model, fold, cases and device."""
        words = ["--attacks", *map(full_name, self.attacks), "--epsilons", *self.epsilons]
        words += ["--epsilons-l2", *self.epsilons_l2, "--corruptions", *self.corruptions]
        if self.max_cases is not None:
            words += ["--max-cases", str(self.max_cases)]
        return [*words, "--disable_tta"]

    @property
    def label_pairs(self) -> list[tuple[str, str]]:
        """The names of `map_labels`, pair by pair."""
        pairs = []
        for word in self.map_labels:
            name, equals, other = (part.strip() for part in word.partition("="))
            if not (name and equals and other) or "=" in other:
                raise UserError(
                    f"labels that mean the same are given as NAME=OTHER, got {word!r} "
                    "(--map-labels)"
                )
            pairs.append((name, other))
        return pairs

    def groups_of(self, data_sets: Sequence[str]) -> Mapping[str, str | None]:
        """{data set: its pattern or table}; None for what its conversion recorded.

        Raises
        ------
        UserError
            Several for one data set.
        """
        common: list[str] = []
        own: dict[str, list[str]] = {name: [] for name in data_sets}
        for word in self.groups or ():
            name, equals, its = word.partition("=")
            (own[name] if equals and name in own else common).append(
                its if equals and name in own else word
            )
        for name, given in own.items():
            if len(given) > 1 or len(common) > 1:
                several = " ".join(common if len(common) > 1 else given)
                raise UserError(
                    f"give one pattern or table for all data sets, and one DATASET=PATTERN for "
                    f"{name} at most, got {several} (--groups)"
                )
        return {name: next(iter([*given, *common]), None) for name, given in own.items()}
