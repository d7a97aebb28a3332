"""What `lngswr paper` is told: data, folds, budget."""

from dataclasses import dataclass

from nnunetv2_lngswr.utils.errors import UserError

TRAINERS = (
    "nnUNetTrainerVanilla",
    "nnUNetTrainerLNGSWR",
    "nnUNetTrainerAT",
    "nnUNetTrainerLNGSWRAT",
)
ATTACKS = ("worst", "pgd_linf", "pgd_l2", "ssah")
DATASET_IDS = {"lidc": 620, "tnscui": 610}
EPOCHS = (1, 5, 10, 20, 50, 100, 250)
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
PLANS = "nnUNetPlans"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is run.

    Raises
    ------
    UserError
        Folds that are not different numbers >= 0, epochs that no trainer's name stands for.
    """

    dataset_id: int
    """Of the converted data."""
    configuration: str = "2d"
    folds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: int | None = None
    """A short budget by the trainers' names; None: nnU-Net's 1000."""
    plans: str = PLANS
    """nnU-Net's own, or others that lie in nnUNet_preprocessed already."""
    steps: int | None = None
    """As in `lngswr evaluate`."""
    max_cases: int | None = None
    """As in `lngswr evaluate`."""
    use_mirroring: bool = True
    """As in `lngswr evaluate`."""
    device: str | None = None
    """None: cuda where there is one."""

    def __post_init__(self):
        if not self.folds or min(self.folds) < 0 or len(set(self.folds)) < len(self.folds):
            got = " ".join(map(str, self.folds)) or "none"
            raise UserError(f"folds must be different numbers >= 0, got {got} (-f)")
        if self.epochs is not None and self.epochs not in EPOCHS:
            known = ", ".join(map(str, EPOCHS))
            raise UserError(f"epochs must be one of {known}, got {self.epochs} (--epochs)")

    @property
    def trainers(self) -> tuple[str, ...]:
        """Names of the trainers, with the budget's suffix."""
        if self.epochs is None:
            return TRAINERS
        plural = "s" if self.epochs > 1 else ""
        return tuple(f"{trainer}_{self.epochs}epoch{plural}" for trainer in TRAINERS)
