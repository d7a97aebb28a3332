"""What a wheel and an sdist hold. Built offline with the setuptools of this environment."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "nnunetv2_lngswr",
    "evaluation",
    "patches",
    "tests",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy to build in, since a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                folder / name,
                ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
            )
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-q",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def members(wheel) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_nothing_of_nnunets(members):
    top = {name.split("/")[0] for name in members}
    assert {t for t in top if not t.endswith(".dist-info")} == {"nnunetv2_lngswr", "evaluation"}


def test_the_wheel_holds_every_module_and_the_shim(members):
    modules = {
        str(p.relative_to(ROOT))
        for package in ("nnunetv2_lngswr", "evaluation")
        for p in (ROOT / package).rglob("*.py")
    }
    modules |= {f"nnunetv2_lngswr/patches/{p.name}" for p in (ROOT / "patches").glob("*.py")}
    assert modules <= members
    assert "nnunetv2_lngswr/patches/nnUNetTrainerLNGSWR.py" in members


def test_the_wheel_holds_what_pages_are_made_of(members):
    assets = [p for p in (ROOT / "evaluation/report/page/assets").iterdir() if p.is_file()]
    assert len(assets) > 10 and {str(p.relative_to(ROOT)) for p in assets} <= members


def test_both_packages_say_that_they_are_typed(members):
    assert {"nnunetv2_lngswr/py.typed", "evaluation/py.typed"} <= members


def test_the_wheel_holds_the_schema_and_the_template_of_cards(members):
    data = {p.name for p in (ROOT / "evaluation" / "cards").iterdir() if p.is_file()}
    data = {name for name in data if not name.endswith(".py")}
    assert {"robustness-card-v1.schema.json", "leaderboard.html.jinja"} == data
    assert {f"evaluation/cards/{name}" for name in data} <= members


def test_an_installed_wheel_finds_its_shim(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from nnunetv2_lngswr.installation.register import shim_source; print(shim_source())"
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str(tmp_path / "nnunetv2_lngswr/patches/nnUNetTrainerLNGSWR.py")


def test_the_sdist_can_build_the_wheel_again(source, tmp_path):
    code = f"import setuptools.build_meta as b; b.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {
        "setup.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "patches/nnUNetTrainerLNGSWR.py",
    } <= names


def test_the_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    required = [
        line
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert "Requires-Python: >=3.11" in metadata
    assert any(
        re.fullmatch(r"Requires-Dist: nnunetv2(<3,>=2\.8|>=2\.8,<3)", line) for line in required
    )
    # what would downgrade or hold back other packages in a user's environment
    assert not [
        line
        for line in required
        if re.search(
            r"torchattacks|setuptools|pytorch.wavelets|ptwt|==|<(?!3,)", line.replace("<3", "")
        )
    ]


def test_one_version_everywhere():
    from nnunetv2_lngswr import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert re.search(
        rf'^version: "?{re.escape(__version__)}"?$', (ROOT / "CITATION.cff").read_text(), re.M
    )
