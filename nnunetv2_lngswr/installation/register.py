"""Puts shims where nnU-Net looks for trainers and planners, takes them out again, and tells how things stand.

nnU-Net v2 finds a trainer by name in the modules of its own folder ``nnunetv2/training/nnUNetTrainer/``, a planner in those of
``nnunetv2/experiment_planning/``; only modules directly in those folders are found without importing sub-packages (and with them timm
and torchvision). `register` copies the files of ``patches/`` there, `unregister` removes them, `doctor` reports and changes nothing.
The functions return what they did or found; only cli.py prints. nnU-Net itself is never imported here, only located.
"""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path

SHIM_NAME = "nnUNetTrainerLNGSWR.py"
PLANNER_SHIM_NAME = "nnUNetPlannerLNGSWR.py"
SHIM_MARKER = b"# lngswr-shim:"
NNUNET_RANGE = "nnunetv2>=2.8,<3"
OPTIONAL_PACKAGES = ("ptwt", "pytorch_wavelets", "torchattacks")
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@dataclass(frozen=True)
class NNUNet:
    """The nnU-Net that this Python would import. `trainer_folder` is where it looks for trainers first."""

    version: str
    trainer_folder: Path

    @property
    def shim(self) -> Path:
        return self.trainer_folder / SHIM_NAME

    @property
    def planner_shim(self) -> Path:
        return _shims_of(self.trainer_folder)[1]


@dataclass(frozen=True)
class Change:
    """What `register` or `unregister` did: `action` is registered, updated, unchanged, removed or absent."""

    action: str
    path: Path


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. `state` is ok, note (nothing needed is missing) or wrong; `fix` says what to do."""

    topic: str
    value: str
    state: str = "ok"
    fix: str = ""


def register() -> list[Change]:
    """Copies the shims, of the trainers and of the planners, into nnU-Net's folders, or brings them up to date. Registering twice changes
    nothing.

    Raises ValueError if nnunetv2 is missing or outside 2.8 <= version < 3, if another file of such a name is in the way (nothing is
    written then), or if a folder cannot be written.
    """
    shims = _shims_of(find_nnunet().trainer_folder)
    states = [shim_state(shim) for shim in shims]
    for shim, state in zip(shims, states):
        if state == "foreign":
            raise UserError(
                f"{shim} was not written by `lngswr register` and is left alone. Move it away, then register again."
            )
    return [_write_shim(shim, state) for shim, state in zip(shims, states)]


def _write_shim(shim: Path, state: str) -> Change:
    if state == "current":
        return Change("unchanged", shim)
    try:
        with atomic_path(shim) as temporary:
            temporary.write_bytes(shim_source(shim.name).read_bytes())
    except OSError as error:
        raise UserError(
            f"cannot write to {shim.parent} ({error.strerror}). Without registering, this makes nnU-Net find the trainers, though not the "
            f"planners (put it into your shell's start-up file; it needs a torchvision that imports, see `lngswr doctor`):\n"
            f"{external_trainer_line()}"
        ) from error
    return Change("updated" if state == "outdated" else "registered", shim)


def unregister() -> list[Change]:
    """Removes the shims from nnU-Net's folders; action "absent" where there is none.

    Raises ValueError if nnunetv2 is missing, if a file of such a name is not ours (nothing is removed then), or if one cannot be removed.
    """
    # any version: a shim must come out also after nnU-Net was up- or downgraded out of our range
    shims = _shims_of(_find_trainer_folder())
    states = [shim_state(shim) for shim in shims]
    for shim, state in zip(shims, states):
        if state == "foreign":
            raise UserError(f"{shim} was not written by `lngswr register` and is left alone.")
    return [_remove_shim(shim, state) for shim, state in zip(shims, states)]


def _remove_shim(shim: Path, state: str) -> Change:
    if state == "absent":
        return Change("absent", shim)
    try:
        shim.unlink()
        Path(importlib.util.cache_from_source(str(shim))).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot remove {shim} ({error.strerror}). Remove it with the rights it was installed with."
        ) from error
    return Change("removed", shim)


def _shims_of(trainer_folder: Path) -> tuple[Path, Path]:
    """(of the trainers, of the planners)."""
    return trainer_folder / SHIM_NAME, trainer_folder.parents[
        1
    ] / "experiment_planning" / PLANNER_SHIM_NAME


def doctor() -> list[Finding]:
    """Looks at the installation and returns one Finding per topic. Imports run in child processes; nothing is changed."""
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


def trainers_are_found() -> bool:
    """Whether nnU-Net will find our trainers: registered, or through nnUNet_extTrainer. Raises ValueError as `find_nnunet`."""
    return shim_state(find_nnunet().shim) in ("current", "outdated") or bool(
        _external_folders_with_shim()
    )


def find_nnunet() -> NNUNet:
    """Locates nnU-Net (regular or editable install) without importing it. Raises ValueError if missing or not 2.8 <= version < 3."""
    folder = _find_trainer_folder()
    try:
        version = importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f'nnunetv2 in {folder.parents[1]} has no version (no package metadata). Install it: pip install "{NNUNET_RANGE}"'
        ) from None
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if not (2, 8) <= numbers < (3,):
        raise UserError(
            f'nnunetv2 {version} in {folder.parents[1]} does not fit; needed is 2.8 <= version < 3: pip install "{NNUNET_RANGE}"'
        )
    return NNUNet(version, folder)


def shim_source(name: str = SHIM_NAME) -> Path:
    """A shim as shipped: beside this module in an installed package, beside the package in a checkout or editable install."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "patches", package.parent / "patches"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{name} is missing from {package / 'patches'}: install nnunetv2_lngswr again.")


def shim_state(shim: Path) -> str:
    """absent, current (equal to the shipped shim), outdated (an older one of ours) or foreign (not ours)."""
    if not os.path.lexists(shim):
        return "absent"
    if not shim.is_file():
        return "foreign"
    content = shim.read_bytes()
    if content == shim_source(shim.name).read_bytes():
        return "current"
    return "outdated" if content.startswith(SHIM_MARKER) else "foreign"


def external_trainer_line() -> str:
    """The shell line that makes nnU-Net find our trainers without a file in its folder."""
    return f"export nnUNet_extTrainer={shim_source().parent}"


def _find_trainer_folder() -> Path:
    spec = importlib.util.find_spec("nnunetv2")
    # without an origin it is a namespace package: a folder left behind by an uninstall (our shim may be all that is in it)
    if spec is None or spec.origin is None:
        raise UserError(
            f'nnunetv2 is not installed for {sys.executable}: pip install "{NNUNET_RANGE}"'
        )
    folder = Path(spec.origin).parent / "training" / "nnUNetTrainer"
    if not (folder / "nnUNetTrainer.py").is_file():
        raise UserError(f'no nnU-Net v2 trainers in {folder}: pip install "{NNUNET_RANGE}"')
    return folder


class _Probe:
    """A line of Python in a child process, so that an import that fails or crashes is only reported."""

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
    # a child started with -c sees the current folder; the package running this may come from elsewhere (PYTHONPATH, a checkout)
    path = [str(Path(__file__).resolve().parents[2])] + os.environ.get("PYTHONPATH", "").split(
        os.pathsep
    )
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def _python_finding() -> Finding:
    value = f"{sys.version.split()[0]} ({sys.executable})"
    if sys.version_info < (3, 11):
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
    except ValueError as error:
        return [Finding("nnunetv2", str(error), "wrong", f'pip install "{NNUNET_RANGE}"')]
    found = Finding("nnunetv2", f"{nnunet.version} in {nnunet.trainer_folder.parents[1]}")
    external = bool(_external_folders_with_shim()) and torchvision_imports
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
            "nnUNet_extTrainer serves trainers only; `-pl nnUNetPlannerLNGSWR` needs lngswr register",
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
        return Finding(name, f"{importlib.metadata.version(name)} (only the tests use it)")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed (only the tests use it)")


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
            name, f"{folder} is not a folder", "note", "create it or correct the variable"
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


def _external_folders_with_shim() -> list[str]:
    folders = os.environ.get("nnUNet_extTrainer", "").split(os.pathsep)
    return [f for f in folders if f and os.path.isfile(os.path.join(f, SHIM_NAME))]
