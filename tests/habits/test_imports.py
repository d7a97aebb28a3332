"""Imports run one way (the contracts of pyproject.toml), and settings are there without torch."""

from tests.habits.tools import run_python, run_tool, said

# what `--help`, a misspelt option and a wrong value need; seconds of torch and nnU-Net are not
WITHOUT_TORCH = (
    "nnunetv2_lngswr.attacks.registry",
    "nnunetv2_lngswr.attacks.terms",
    "nnunetv2_lngswr.cli.main",
    "nnunetv2_lngswr.datasets.options",
    "nnunetv2_lngswr.method.config",
    "nnunetv2_lngswr.training.adversarial_settings",
    "nnunetv2_lngswr.training.settings",
    "evaluation.compare",
    "evaluation.corruption_table",
    "evaluation.options",
    "evaluation.protocol",
    "evaluation.report_page",
    "evaluation.robust",
    "evaluation.score",
)
HEAVY = ("torch", "nnunetv2", "scipy", "matplotlib", "SimpleITK")


def test_the_contracts_are_kept(tmp_path):
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    words = ["-c", script, "--no-logo", "--cache-dir", str(tmp_path)]
    done = run_tool("importlinter", words, distribution="import-linter")
    assert done.returncode == 0, said(done)


def test_settings_and_commands_are_imported_without_torch():
    script = f"""
import importlib, sys
for name in {WITHOUT_TORCH}:
    importlib.import_module(name)
    heavy = [h for h in {HEAVY} if h in sys.modules]
    assert not heavy, f"{{name}} imports {{', '.join(heavy)}}"
"""
    done = run_python(["-c", script])
    assert done.returncode == 0, said(done)
