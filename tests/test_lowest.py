"""The lowest versions that setup.py allows work.

The slow test makes an environment of them, with the torch that runs the tests, since an older one
is a download of several GB on some machines; the workflow's job `lowest` has the oldest torch too.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "tests" / "lowest.txt"
PYTHON_OF_LOWEST = "LNGSWR_LOWEST_PYTHON"
"""Environment variable: the Python of such an environment, to spare making one."""
WHAT_RUNS = (
    "tests/test_trainers.py",
    "tests/utils/test_checkpoints.py",
    "tests/utils/test_plans_names.py",
    "tests/training/test_warm_start.py",
    "tests/evaluation/test_metrics.py",
    "tests/evaluation/model/test_inference.py",
    "tests/evaluation/model/test_bad_models.py",
    "tests/evaluation/model/test_strangers.py",
    "tests/made_before",
)


def requirements() -> list[str]:
    """install_requires of setup.py."""
    calls = [n for n in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if _is_setup(n)]
    (value,) = (k.value for k in calls[0].keywords if k.arg == "install_requires")
    return ast.literal_eval(value)


def _is_setup(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", None) == "setup"


def constraints() -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==([\d.]+)$", CONSTRAINTS.read_text(), re.M))


def test_lowest_is_what_setup_allows():
    floors = dict(m.groups() for r in requirements() if (m := re.match(r"([\w-]+)>=([\d.]+)", r)))
    tested = constraints()
    del tested["torchvision"]  # what belongs to that torch
    assert set(floors) == set(tested)
    for name, floor in floors.items():
        assert re.fullmatch(rf"{re.escape(floor)}(\.0)*", tested[name]), name


def test_the_workflow_and_the_docs_name_the_same():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert "-c tests/lowest.txt" in workflow
    torch = constraints()["torch"].removesuffix(".0")
    for page in ("README.md", "docs/index.md"):
        assert f"torch {torch}" in " ".join((ROOT / page).read_text().split())


@pytest.fixture
def python(tmp_path):
    """Of an environment with the lowest versions, but for torch."""
    if PYTHON_OF_LOWEST in os.environ:
        yield os.environ[PYTHON_OF_LOWEST]
        return
    folder = tmp_path / "lowest"
    venv.create(folder, with_pip=True)
    found = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    torch = version("torch").split("+")[0]
    pinned = [f"{n}=={v}" for n, v in constraints().items() if not n.startswith("torch")]
    (tmp_path / "constraints.txt").write_text("\n".join([*pinned, f"torch=={torch}"]))
    packages = [*requirements(), "pytest", "pytest-timeout"]
    pip = [str(found), "-m", "pip", "install", "-q", "-c", str(tmp_path / "constraints.txt")]
    done = subprocess.run([*pip, *packages], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    yield str(found)
    shutil.rmtree(folder)  # 1.5 GB, which pytest would keep for its last three runs


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="NumPy 1.26 has no wheels for this Python")
def test_trainers_checkpoints_and_predictions_work_with_the_lowest_versions(python):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    versions = "from importlib.metadata import version as v; print(v('numpy'), v('nnunetv2'))"
    said = subprocess.check_output([python, "-c", versions], text=True)
    assert said.split() == [constraints()["numpy"], constraints()["nnunetv2"]]
    register = "import sys; from nnunetv2_lngswr.cli.main import main; sys.exit(main(['register']))"
    subprocess.run([python, "-c", register], check=True, env=environment, cwd=ROOT)
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *WHAT_RUNS],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-5000:]
