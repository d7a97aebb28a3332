"""README and manual: their size, their commands, the tests that they name, and the site."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks import evidence_tables
from evaluation.cards.schema import SCHEMA_FILE
from evaluation.corruption_table import corruption_names
from evaluation.options import WORST, Options
from evaluation.protocol import GRADIENT_COST, plan_runs
from nnunetv2_lngswr.attacks.registry import attack_names
from nnunetv2_lngswr.attacks.suites import NEWEST
from tests.habits.commands import Shown, check, commands_of, shown_commands
from tests.habits.tools import ROOT, pages, run_tool, said

README_WORDS = 1000
NAMED_TEST = re.compile(r"`(?:[\w/]*/)?(?=test_|::)(test_\w+\.py)?(?:::(test_\w+))?`")
NAMED_FILE = re.compile(r"`((?:benchmarks|evaluation|nnunetv2_lngswr|docs|tests)/[\w./-]+)`")
NAMED_RESULT = re.compile(r"`(20[\w-]+\.json)`")
# by who follows a recipe of CONTRIBUTING.md
TO_BE_ADDED = ("momentum.py", "test_momentum.py", "NAME.py", "test_NAME.py")
COMMANDS = shown_commands()
PAGES_WITH_TABLES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "<!-- table:" in page.read_text("utf-8")
]


def test_readme_has_at_most_1000_words():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= README_WORDS


@pytest.mark.parametrize("shown", COMMANDS, ids=[f"{c.where} {c.text}"[:90] for c in COMMANDS])
def test_every_command_shown_is_one_that_its_parser_takes(shown, monkeypatch):
    check(shown, monkeypatch)


def test_commands_are_found_and_wrong_ones_are_seen(monkeypatch, capsys):
    text = (
        "```\nlngswr splits -i A \\\n    --pattern B  # why\nlngswr splits --no-such C && ls\n```\n"
    )
    good, wrong, unknown = commands_of(ROOT.relative_to(ROOT), text)
    assert good.words == ("lngswr", "splits", "-i", "A", "--pattern", "B")
    check(good, monkeypatch)
    for shown in (wrong, unknown, Shown("here", ("nnUNetv2_no_such",))):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check(shown, monkeypatch)


def test_every_test_that_the_manual_names_exists():
    files = defaultdict(str)
    for path in ROOT.glob("tests/**/test_*.py"):
        files[path.name] += path.read_text(encoding="utf-8")
    missing = []
    for page in pages():
        for file, function in NAMED_TEST.findall(page.read_text(encoding="utf-8")):
            if file in TO_BE_ADDED:
                continue
            where = files[file] if file else "".join(files.values())
            if not where or (function and f"def {function}(" not in where):
                missing.append(f"{page.name}: {file}::{function}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    ("rows", "names"),
    [(("attacks, by default", "by name"), attack_names()), (("corruptions",), corruption_names())],
    ids=["attacks", "corruptions"],
)
def test_the_manual_names_what_can_be_run_and_nothing_else(rows, names):
    text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    told = set()
    for row in rows:
        (cell,) = re.findall(rf"^\| {row}[^|]*\|(.*)\|$", text, flags=re.MULTILINE)
        told |= set(re.findall(r"`([a-z0-9][a-z0-9_-]*)`", cell))
    assert told - {*WORST, *NEWEST} == set(names)


@pytest.mark.parametrize("two_dimensional", [True, False])
@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/evaluation.md"])
def test_what_the_whole_suite_costs_is_what_is_planned(page, two_dimensional):
    runs = plan_runs(Options(), ct=False, two_dimensional=two_dimensional).runs
    planned = sum(run.cost for run in runs)
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert f"about {50 * round(planned / 50):,.0f} predictions per case" in text


def test_a_gradient_costs_what_was_measured():
    file = ROOT / "benchmarks/results/2026-11-29-attack-cost-cpu.json"
    measured = json.loads(file.read_text(encoding="utf-8"))
    costs = [measured[dimension]["time"]["step_over_predictor"] for dimension in ("2d", "3d")]
    assert round(sum(costs) / 2) == GRADIENT_COST


def test_the_map_names_every_folder_and_every_module_of_the_evaluation():
    text = (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")
    picture = text[text.index("```\nnnunetv2_lngswr/") :].split("```")[1]
    packages = [p.parent for p in ROOT.glob("*/**/__init__.py") if "tests" not in p.parts]
    named = {f"{p.name}/" for p in packages if len(p.relative_to(ROOT).parts) <= 2}
    for folder in ("evaluation", "nnunetv2_lngswr/method", "nnunetv2_lngswr/training"):
        named |= {p.name for p in (ROOT / folder).glob("*.py") if p.name != "__init__.py"}
    assert not [name for name in sorted(named) if name not in picture]


def test_every_file_of_ours_that_the_manual_names_exists():
    missing = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        named = [*NAMED_FILE.findall(text)]
        named += [f"benchmarks/results/{name}" for name in NAMED_RESULT.findall(text)]
        for name in named:
            if Path(name).name not in TO_BE_ADDED and not (ROOT / name).exists():
                missing.append(f"{page.name}: {name}")
    assert not missing, "\n".join(missing)


def test_tables_of_the_evidence_are_those_of_the_results():
    names = {page.name for page in PAGES_WITH_TABLES}
    assert names >= {"README.md", "evidence.md", "evidence-details.md", "robustify.md"}
    evidence_tables.main([*map(str, PAGES_WITH_TABLES), "--check"])


def test_every_benchmark_says_the_command_that_runs_it():
    scripts = [p for p in (ROOT / "benchmarks").glob("*.py") if "__main__" in p.read_text("utf-8")]
    assert len(scripts) > 10
    for script in scripts:
        assert f"    python -m benchmarks.{script.stem} " in script.read_text("utf-8"), script.name


def test_the_site_builds(tmp_path):
    words = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    for module in ("material", "mkdocstrings", "griffe"):
        pytest.importorskip(module, reason="pip install -e '.[test]'")
    done = run_tool("mkdocs", words, distribution="mkdocs", NO_MKDOCS_2_WARNING="1")
    assert done.returncode == 0, said(done)
    assert (tmp_path / "site/index.html").is_file()
    assert "https://fonts." not in (tmp_path / "site/index.html").read_text()
    # and serves what cards are valid by
    assert (tmp_path / "site" / SCHEMA_FILE.name).read_bytes() == SCHEMA_FILE.read_bytes()
