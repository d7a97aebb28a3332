"""`lngswr paper`: which commands, in which order, and what of them a second call repeats. The commands themselves are stood in for by
files that they would write; that they run is shown by the tests of trainers and evaluation, which use the same options."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.experiments import paper
from nnunetv2_lngswr.experiments.paper import Protocol, run_paper
from nnunetv2_lngswr.installation import register

CASES = [f"case_{i}" for i in range(10)]
NAME = "Dataset620_LIDC"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    for folder in paper.FOLDERS:
        monkeypatch.setenv(folder, str(tmp_path / folder))
    raw = tmp_path / "nnUNet_raw" / NAME
    raw.mkdir(parents=True)
    (raw / "dataset.json").write_text(
        json.dumps({"numTraining": len(CASES), "file_ending": ".nii.gz"})
    )
    (raw / "labelsTr").mkdir()
    for case in CASES:
        (raw / "labelsTr" / f"{case}.nii.gz").write_text(case)
    folds = [
        {
            "train": [c for c in CASES if c not in CASES[2 * f : 2 * f + 2]],
            "val": CASES[2 * f : 2 * f + 2],
        }
        for f in range(5)
    ]
    (raw / "splits_final.json").write_text(json.dumps(folds))
    monkeypatch.setattr(register, "trainers_are_found", lambda: True)
    return tmp_path


class Commands:
    """Writes what the real commands would, and remembers them. `fail_at`: the number of the command that fails."""

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
            "lngswr": self.evaluate,
            "python": self.compare,
        }
        write[argv[0]](argv)
        return 0

    def preprocess(self, argv):
        folder = self.root / "nnUNet_preprocessed" / NAME
        assert (
            folder / "splits_final.json"
        ).is_file()  # nnU-Net's planner stops at others, and copies none over these
        (folder / "nnUNetPlans_2d").mkdir(parents=True, exist_ok=True)
        shutil.copytree(
            self.root / "nnUNet_raw" / NAME / "labelsTr",
            folder / "gt_segmentations",
            dirs_exist_ok=True,
        )
        (folder / "nnUNetPlans.json").write_text(
            json.dumps({"configurations": {"2d": {"data_identifier": "nnUNetPlans_2d"}}})
        )
        for case in CASES:
            (folder / "nnUNetPlans_2d" / f"{case}.pkl").touch()

    def fold(self, argv) -> Path:
        return (
            self.root
            / "nnUNet_results"
            / NAME
            / f"{argv[argv.index('-tr') + 1]}__nnUNetPlans__{argv[2]}"
            / f"fold_{argv[3]}"
        )

    def train(self, argv):
        (self.fold(argv) / "validation").mkdir(parents=True)
        (self.fold(argv) / "checkpoint_final.pth").touch()
        (self.fold(argv) / "validation" / "summary.json").touch()

    def evaluate(self, argv):
        out = Path(argv[argv.index("-o") + 1])
        out.mkdir(parents=True, exist_ok=True)
        (out / "summary.json").write_text("{}")

    def compare(self, argv):
        out = Path(argv[argv.index("-o") + 1])
        out.mkdir(parents=True, exist_ok=True)
        (out / "compare.md").write_text("| table |")


@pytest.fixture
def commands(root, monkeypatch):
    def use(fail_at: int | None = None) -> Commands:
        stand_in = Commands(root, fail_at)
        monkeypatch.setattr(paper, "call_command", stand_in)
        return stand_in

    return use


PROTOCOL = Protocol(dataset_id=620, folds=(0, 1))


def test_all_steps_in_their_order(root, commands):
    run = commands()
    table = run_paper(PROTOCOL, root / "out")
    assert table.read_text() == "| table |"
    assert [c[0] for c in run.seen] == ["nnUNetv2_plan_and_preprocess"] + ["nnUNetv2_train"] * 8 + [
        "lngswr"
    ] * 4 + ["python"]
    assert [(c[5], c[3]) for c in run.seen[1:9]] == [(t, f) for t in paper.TRAINERS for f in "01"]
    attack = run.seen[9]
    assert attack[attack.index("--attacks") + 1 :][:5] == [
        "noise",
        "pgd_linf",
        "pgd_l2",
        "ssah",
        "--corruptions",
    ]
    # the reference of the table is the vanilla network
    assert [Path(p).name for p in run.seen[-1][3:7]] == list(paper.TRAINERS)
    copied = root / "nnUNet_preprocessed" / NAME / "splits_final.json"
    assert json.loads(copied.read_text()) == json.loads(
        (root / "nnUNet_raw" / NAME / "splits_final.json").read_text()
    )


def test_a_second_call_runs_nothing(root, commands):
    commands()
    run_paper(PROTOCOL, root / "out")
    again, said = commands(), []
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    run_paper(PROTOCOL, root / "out", say=said.append)
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    assert (
        again.seen == [] and len(said) == 15 and all(line.endswith("done before") for line in said)
    )


@pytest.mark.parametrize("at", [1, 4, 11, 14])
def test_a_failed_call_goes_on_where_it_stopped(root, commands, at):
    whole = commands(fail_at=at)
    with pytest.raises(ValueError, match=r"failed \(exit status 1\); the same lngswr call goes on"):
        run_paper(PROTOCOL, root / "out")
    rest = commands()
    run_paper(PROTOCOL, root / "out")
    assert len(whole.seen) + len(rest.seen) == 14 + 1
    again = rest.seen[0]
    # a training that was cut off goes on from its checkpoint
    assert again == whole.seen[-1] + (["--c"] if at == 4 else [])


def test_a_new_checkpoint_is_attacked_again(root, commands):
    commands()
    run_paper(PROTOCOL, root / "out")
    changed = (
        next((root / "nnUNet_results" / NAME).glob("nnUNetTrainerAT__*/fold_0"))
        / "checkpoint_final.pth"
    )
    later = max(p.stat().st_mtime for p in root.rglob("*")) + 5
    os.utime(changed, (later, later))
    commands_again = commands()
    # the stand-in's outputs are older than a time in the future
    with pytest.raises(
        ValueError, match="attack nnUNetTrainerAT: the command ended without its outputs"
    ):
        run_paper(PROTOCOL, root / "out")
    assert [c[0] for c in commands_again.seen] == [
        "lngswr"
    ] and "nnUNetTrainerAT__nnUNetPlans__2d" in commands_again.seen[0][3]


def test_data_that_were_converted_anew_are_preprocessed_again_or_refused(root, commands):
    first = commands(fail_at=2)
    with pytest.raises(ValueError, match="failed"):
        run_paper(PROTOCOL, root / "out")
    shutil.rmtree(root / "nnUNet_results")
    label = root / "nnUNet_raw" / NAME / "labelsTr" / "case_3.nii.gz"
    label.write_text("any reader")
    second = commands()
    run_paper(PROTOCOL, root / "out")
    assert [c[0] for c in first.seen[:1] + second.seen[:2]] == [
        "nnUNetv2_plan_and_preprocess"
    ] * 2 + ["nnUNetv2_train"]
    label.write_text("all readers")
    with pytest.raises(
        ValueError,
        match="labelsTr has changed since it was preprocessed .* nnUNetTrainerVanilla, .* were trained on that",
    ):
        run_paper(PROTOCOL, root / "out")


def test_ctrl_c_ends_with_one_line(root, commands, monkeypatch, capsys):
    def interrupted(command):
        raise KeyboardInterrupt

    monkeypatch.setattr(paper, "call_command", interrupted)
    assert cli.main(["paper", "lidc", "-o", str(root / "out"), "-device", "cpu"]) == 130
    assert (
        capsys.readouterr().err
        == "lngswr: interrupted; what is done is kept: the same call goes on\n"
    )


def test_dry_run_prints_what_would_be_run_and_writes_nothing(root, commands, capsys):
    stand_in = commands()
    before = sorted(root.rglob("*"))
    assert (
        cli.main(
            [
                "paper",
                "lidc",
                "-o",
                str(root / "out"),
                "--dry-run",
                "--epochs",
                "5",
                "--steps",
                "3",
                "-f",
                "0",
            ]
        )
        == 0
    )
    assert stand_in.seen == [] and sorted(root.rglob("*")) == before
    printed = [
        shlex.split(line)
        for line in capsys.readouterr().out.splitlines()
        if not line.startswith("#")
    ]
    assert printed[1] == [
        "nnUNetv2_plan_and_preprocess",
        "-d",
        "620",
        "-c",
        "2d",
        "--verify_dataset_integrity",
    ]
    assert printed[2] == [
        "nnUNetv2_train",
        "620",
        "2d",
        "0",
        "-tr",
        "nnUNetTrainerVanilla_5epochs",
        "-p",
        "nnUNetPlans",
    ]
    assert len(printed) == 11


def test_the_printed_commands_are_ones_that_exist(root, capsys, monkeypatch):
    from evaluation import compare
    from evaluation.command_line import build_parser as robust_parser

    cli.main(
        [
            "paper",
            "lidc",
            "-o",
            str(root / "out"),
            "--dry-run",
            "--steps",
            "3",
            "--max-cases",
            "2",
            "--disable_tta",
            "-device",
            "cpu",
            "--epochs",
            "1",
        ]
    )
    for words in (
        shlex.split(line)
        for line in capsys.readouterr().out.splitlines()
        if not line.startswith("#")
    ):
        if words[0] == "lngswr":
            parsed = robust_parser().parse_args(words[2:])
            assert (
                parsed.corruptions == []
                and parsed.max_cases == 2
                and not parsed.use_mirroring
                and len(parsed.folds) == 5
            )
        elif words[0] == "python":
            compared = []
            monkeypatch.setattr(
                compare,
                "compare",
                lambda folders, output, **_: (
                    compared.append((folders, output))
                    or (Path(output).mkdir(parents=True), (Path(output) / "compare.md").touch())
                ),
            )
            assert words[1:3] == ["-m", "evaluation.compare"] and compare.main(words[3:]) == 0
            assert len(compared[0][0]) == 4 and Path(compared[0][1]).name == "table"
        elif words[0] == "nnUNetv2_train":
            assert hasattr(trainers, words[words.index("-tr") + 1])


def test_refusals(root, commands, monkeypatch):
    commands()
    run_paper(PROTOCOL, root / "out")
    with pytest.raises(ValueError, match="is of another protocol"):
        run_paper(Protocol(dataset_id=620, folds=(0, 1), steps=3), root / "out")
    with pytest.raises(ValueError, match="fold 7 was asked for"):
        run_paper(Protocol(dataset_id=620, folds=(7,)), root / "other")
    with pytest.raises(ValueError, match="must hold one data set of number 610"):
        run_paper(Protocol(dataset_id=610), root / "other")
    with pytest.raises(ValueError, match="minePlans.json does not exist"):
        run_paper(Protocol(dataset_id=620, plans="minePlans"), root / "other", dry_run=True)
    # other splits under trained models would mix training and validation
    (root / "nnUNet_preprocessed" / NAME / "splits_final.json").write_text("[]")
    with pytest.raises(ValueError, match="were trained with it"):
        run_paper(PROTOCOL, root / "out")
    (root / "nnUNet_raw" / NAME / "splits_final.json").unlink()
    with pytest.raises(ValueError, match="has no splits_final.json"):
        run_paper(PROTOCOL, root / "out")
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(ValueError, match="environment variables first: nnUNet_results"):
        run_paper(PROTOCOL, root / "out")


@pytest.mark.parametrize(
    "options, said",
    [
        (dict(folds=()), "folds must be"),
        (dict(folds=(0, 0)), "different"),
        (dict(epochs=7), "got 7"),
    ],
)
def test_bad_protocols(options, said):
    with pytest.raises(ValueError, match=said):
        Protocol(dataset_id=1, **options)
