"""Stand-ins for the protocol's commands, which write the files that these would write."""

import json
import shutil
from pathlib import Path

CASES = [f"case_{i}" for i in range(10)]
NAME = "Dataset620_LIDC"


class Commands:
    """Writes what the real commands would, and remembers them.

    `fail_at`: the number of the command that fails.
    """

    def __init__(self, root: Path, fail_at: int | None = None):
        self.root, self.fail_at, self.seen = root, fail_at, []

    def __call__(self, argv) -> int:
        self.seen.append(list(argv))
        if len(self.seen) == self.fail_at:
            if "train" in argv[0]:
                self.fold(argv).mkdir(parents=True)
                (self.fold(argv) / "checkpoint_latest.pth").touch()
            return 1
        write = {
            "nnUNetv2_plan_and_preprocess": self.preprocess,
            "nnUNetv2_train": self.train,
            "evaluate": self.evaluate,
            "compare": self.compare,
        }
        write[argv[1] if argv[0] == "lngswr" else argv[0]](argv)
        return 0

    def preprocess(self, argv):
        folder = self.root / "nnUNet_preprocessed" / NAME
        # nnU-Net's planner stops at others, and copies none over these
        assert (folder / "splits_final.json").is_file()
        (folder / "nnUNetPlans_2d").mkdir(parents=True, exist_ok=True)
        labels = self.root / "nnUNet_raw" / NAME / "labelsTr"
        shutil.copytree(labels, folder / "gt_segmentations", dirs_exist_ok=True)
        plans = {"configurations": {"2d": {"data_identifier": "nnUNetPlans_2d"}}}
        (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
        for case in CASES:
            (folder / "nnUNetPlans_2d" / f"{case}.pkl").touch()

    def fold(self, argv) -> Path:
        model = f"{argv[argv.index('-tr') + 1]}__nnUNetPlans__{argv[2]}"
        return self.root / "nnUNet_results" / NAME / model / f"fold_{argv[3]}"

    def train(self, argv):
        (self.fold(argv) / "validation").mkdir(parents=True)
        (self.fold(argv) / "checkpoint_final.pth").touch()
        (self.fold(argv) / "validation" / "summary.json").touch()

    def evaluate(self, argv):
        out = Path(argv[argv.index("-o") + 1])
        # the real one refuses what it holds of another checkpoint
        assert not (out / "summary.json").exists() or "--overwrite" in argv
        out.mkdir(parents=True, exist_ok=True)
        (out / "summary.json").write_text("{}")

    def compare(self, argv):
        out = Path(argv[argv.index("-o") + 1])
        out.mkdir(parents=True, exist_ok=True)
        (out / "compare.md").write_text("| table |")
