"""nnU-Net's commands and `lngswr evaluate` as programs that take no time and do what kills test.

A training makes six epochs, each of which changes its result, saves a checkpoint after each and
goes on from it; it has a process of its own beside it, and notices another training in its folder.
"""

import os
import stat
import sys
from pathlib import Path

PROGRAM = """#!{python} -S
import fcntl, hashlib, json, os, subprocess, sys, time
from pathlib import Path

name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
preprocessed = Path(os.environ["nnUNet_preprocessed"]) / {dataset!r}
results = Path(os.environ["nnUNet_results"])

def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{{path.name}}.{{os.getpid()}}")
    new.write_text(text)
    new.replace(path)

def alone(folder):
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / "busy", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        (results / "TWICE").touch()
    return file

def train():
    trainer, plans = words[words.index("-tr") + 1], words[words.index("-p") + 1]
    fold = results / {dataset!r} / f"{{trainer}}__{{plans}}__2d" / f"fold_{{words[2]}}"
    held = alone(fold)
    subprocess.Popen(["sleep", "60"])
    latest, state = fold / "checkpoint_latest.pth", {{"epoch": 0, "result": trainer}}
    if "--c" in words:
        state = json.loads(latest.read_text())
    while state["epoch"] < 6:
        time.sleep(0.05)
        result = hashlib.sha256(state["result"].encode()).hexdigest()
        state = {{"epoch": state["epoch"] + 1, "result": result}}
        write(latest, json.dumps(state))
    write(fold / "checkpoint_final.pth", json.dumps(state))
    write(fold.parent / "plans.json", (preprocessed / f"{{plans}}.json").read_text())
    write(fold / "training_log_1.txt", "Epoch time: 1.0 s")
    write(fold / "validation" / "summary.json", "{{}}")

def evaluate():
    model, out = Path(words[words.index("-m") + 1]), Path(words[words.index("-o") + 1])
    held = alone(out)
    time.sleep(0.1)
    state = json.loads((model / "fold_0" / "checkpoint_final.pth").read_text())
    row = {{"kind": "clean", "attack": "clean", "epsilon_text": ""}}
    row["dice"] = int(state["result"][:8], 16) / 2**32
    write(out / "summary.json", json.dumps({{"results": [row], "cases": ["a"]}}))

def plan():
    write(preprocessed / "nnUNetPlans.json", json.dumps({{"configurations": {{"2d": {{}}}}}}))

fingerprint = preprocessed / "dataset_fingerprint.json"
do = {{
    "nnUNetv2_extract_fingerprint": lambda: write(fingerprint, "{{}}"),
    "nnUNetv2_plan_experiment": plan,
    "nnUNetv2_preprocess": lambda: time.sleep(0.1),
    "nnUNetv2_train": train,
    "lngswr": evaluate,
}}
do[name]()
"""
NAMES = (
    "nnUNetv2_extract_fingerprint",
    "nnUNetv2_plan_experiment",
    "nnUNetv2_preprocess",
    "nnUNetv2_train",
    "lngswr",
)
# `lngswr benchmark robustness` with these programs, and without the comparison
CALL = """
import sys
from pathlib import Path
from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.experiments.robustness import PRESETS, commands, table
from nnunetv2_lngswr.installation import register
from nnunetv2_lngswr.utils import processes
from nnunetv2_lngswr.utils.command_line import leave
from tests.experiments.robustness.settings import DATASET, TINY

programs, out, *words = sys.argv[1:]
PRESETS["tiny"] = TINY
register.trainers_are_found = lambda: True
processes.beside_python = lambda name: str(Path(programs) / name)
processes.PATIENCE_SECONDS = (1.0, 0.5)
commands.cores = lambda: 2

def compare(folders, output, *, names, groups=None):
    (output / "compare.json").write_text('{"results": []}')
    (output / "compare.md").write_text("compared")

table.compare = compare
table.dice_by_case = lambda evaluation: {}
table.PLANS_KEY = "batch_size"  # an entry that the stand-ins' plans have
call = ["benchmark", "robustness", "-d", DATASET, "-c", "2d", "--preset", "tiny", "-device", "cpu"]
leave(cli.main([*call, "-o", out, *words]))
"""


def write_programs(folder: Path, dataset: str) -> Path:
    """Write them into a folder, which is returned."""
    folder.mkdir()
    for name in NAMES:
        file = folder / name
        file.write_text(PROGRAM.format(python=sys.executable, dataset=dataset))
        os.chmod(file, file.stat().st_mode | stat.S_IXUSR)
    return folder
