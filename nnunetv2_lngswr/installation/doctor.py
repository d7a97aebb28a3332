"""`lngswr doctor`: what is installed, where, and what is wrong.

Imports run in child processes, so that one that fails or crashes is only reported; nothing is
changed, and nothing is printed: the command line does that.
"""

import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.installation.register import (
    NNUNET_RANGE,
    external_folders_with_shim,
    external_trainer_line,
    find_nnunet,
    shim_state,
)
from nnunetv2_lngswr.utils.errors import UserError

OPTIONAL_PACKAGES = {
    "ptwt": "for the tests",
    "pytorch_wavelets": "for the tests",
    "torchattacks": "see evaluation.md",
    "torchio": "see evaluation.md",
}
"""What is not needed, and for what it is of use."""
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    topic: str
    value: str
    state: str = "ok"
    """ok, note (nothing needed is missing) or wrong."""
    fix: str = ""
    """What to do."""


def doctor() -> list[Finding]:
    """Look at the installation and return one Finding per topic."""
    # started first, they run while the rest is collected
    torch_probe = _Probe(
        "import torch; print(torch.__version__, 'cuda' if torch.cuda.is_available() else "
        "'mps' if torch.backends.mps.is_available() else 'cpu')"
    )
    torchvision_probe = _Probe("import torchvision; print(torchvision.__version__)")
    trainers_probe = _Probe("from nnunetv2_lngswr import trainers; print(len(trainers.__all__))")

    findings = [
        _python_finding(),
        Finding("nnunetv2_lngswr", f"{__version__} in {Path(__file__).resolve().parents[1]}"),
        _torch_finding(torch_probe),
    ]
    torchvision, torchvision_imports = _torchvision_finding(torchvision_probe)
    findings += _nnunet_findings(torchvision_imports)
    findings += [_trainers_finding(trainers_probe), torchvision]
    findings += [_optional_finding(name) for name in OPTIONAL_PACKAGES]
    findings += [_environment_finding(name) for name in NNUNET_FOLDERS]
    findings.append(_external_trainer_finding())
    return findings


class _Probe:
    """A line of Python in a child process."""

    def __init__(self, code: str):
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment_with_package(),
        )

    def result(self) -> tuple[bool, str]:
        """(worked, the last line it printed or of its error)."""
        output, errors = self._process.communicate()
        worked = self._process.returncode == 0
        lines = (output if worked else errors).strip().splitlines()
        return worked, lines[-1] if lines else f"exit status {self._process.returncode}"


def _environment_with_package() -> dict[str, str]:
    # a child started with -c sees the current folder; the package running this may come from
    # elsewhere (PYTHONPATH, a checkout)
    here = str(Path(__file__).resolve().parents[2])
    path = [here, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def _python_finding() -> Finding:
    value = f"{sys.version.split()[0]} ({sys.executable})"
    # a checkout can be started by an older Python, which no installer has refused
    if sys.version_info < (3, 11):  # noqa: UP036 - see above
        return Finding("python", value, "wrong", "use Python 3.11 or newer")
    return Finding("python", value)


def _torch_finding(probe: _Probe) -> Finding:
    worked, line = probe.result()
    if not worked:
        return Finding("torch", line, "wrong", "pip install torch")
    version, device = line.split()
    names = {
        "cuda": "CUDA",
        "mps": "MPS (-device mps)",
        "cpu": "CPU only (give nnU-Net's commands -device cpu)",
    }
    return Finding("torch", f"{version}, device: {names[device]}")


def _torchvision_finding(probe: _Probe) -> tuple[Finding, bool]:
    worked, line = probe.result()
    if worked:
        return Finding("torchvision", f"{line}, imports"), True
    return Finding(
        "torchvision",
        f"does not import ({line})",
        "note",
        "matters only with nnUNet_extTrainer; `lngswr register` needs none",
    ), False


def _nnunet_findings(torchvision_imports: bool) -> list[Finding]:
    try:
        nnunet = find_nnunet()
    except UserError as error:
        return [Finding("nnunetv2", str(error), "wrong", f'pip install "{NNUNET_RANGE}"')]
    found = Finding("nnunetv2", f"{nnunet.version} in {nnunet.trainer_folder.parents[1]}")
    external = bool(external_folders_with_shim()) and torchvision_imports
    return [
        found,
        _shim_finding("trainer shim", nnunet.shim, external),
        _shim_finding("planner shim", nnunet.planner_shim, external),
    ]


def _shim_finding(topic: str, shim: Path, external: bool) -> Finding:
    state = shim_state(shim)
    value = f"{state}: {shim}"
    if state == "current":
        return Finding(topic, value)
    if state == "foreign":
        return Finding(
            topic,
            value,
            "wrong",
            "not written by `lngswr register`: move it away, then lngswr register",
        )
    if state == "absent" and external:
        if topic == "trainer shim":
            return Finding(topic, f"{value}; found through nnUNet_extTrainer instead")
        return Finding(
            topic,
            value,
            "note",
            "nnUNet_extTrainer serves trainers only; "
            "`-pl nnUNetPlannerLNGSWR` needs lngswr register",
        )
    return Finding(topic, value, "wrong", "lngswr register")


def _trainers_finding(probe: _Probe) -> Finding:
    worked, line = probe.result()
    if worked:
        return Finding("trainers", f"{line} import")
    return Finding(
        "trainers",
        f"do not import ({line})",
        "wrong",
        "mend what the line names, or install nnunetv2_lngswr again",
    )


def _optional_finding(name: str) -> Finding:
    try:
        return Finding(name, f"{importlib.metadata.version(name)} (optional)")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, f"not installed (optional: {OPTIONAL_PACKAGES[name]})")


def _environment_finding(name: str) -> Finding:
    folder = os.environ.get(name)
    if not folder:
        return Finding(
            name,
            "not set",
            "note",
            f"export {name}=FOLDER before nnU-Net's commands; `lngswr demo` sets its own",
        )
    if not os.path.isdir(folder):
        return Finding(
            # the others are made by nnU-Net's commands
            name,
            f"{folder} is not a folder",
            "wrong" if name == "nnUNet_raw" else "note",
            "create it or correct the variable",
        )
    return Finding(name, folder)


def _external_trainer_finding() -> Finding:
    value = os.environ.get("nnUNet_extTrainer")
    if not value:
        return Finding("nnUNet_extTrainer", "not set (not needed once registered)")
    for folder in value.split(os.pathsep):
        for name in ("setup.py", "conftest.py"):
            if os.path.isfile(os.path.join(folder, name)):
                return Finding(
                    "nnUNet_extTrainer",
                    value,
                    "note",
                    f"nnU-Net would import {os.path.join(folder, name)}: {external_trainer_line()}",
                )
    return Finding("nnUNet_extTrainer", value)
