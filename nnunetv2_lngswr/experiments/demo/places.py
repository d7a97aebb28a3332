"""Where nnU-Net and the demo keep what belongs to one set."""

from pathlib import Path

from nnunetv2_lngswr.datasets.phantom import PHANTOM_SETS
from nnunetv2_lngswr.experiments.demo.plans import BUDGETS, PLANS_NAME

TRAINER = "nnUNetTrainerLNGSWR"
FOLD = 0


class Places:
    """Folders of one set below the demo's output.

    Parameters
    ----------
    kind
        "2d" or "3d".
    output
        The demo's folder.
    """

    def __init__(self, kind: str, output: Path):
        folders = nnunet_folders(output)
        name = PHANTOM_SETS[kind].dataset_name
        model = f"{TRAINER}__{PLANS_NAME}__{BUDGETS[kind].configuration}"
        self.file_ending = PHANTOM_SETS[kind].file_ending
        self.raw = folders["nnUNet_raw"] / name
        self.preprocessed = folders["nnUNet_preprocessed"] / name
        self.model = folders["nnUNet_results"] / name / model
        self.fold = self.model / f"fold_{FOLD}"
        self.predictions = output / "predictions" / name
        self.robustness = output / "robustness" / name


def nnunet_folders(output: Path) -> dict[str, Path]:
    """Return nnU-Net's three folders below the demo's, by their environment variables."""
    return {name: output / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
