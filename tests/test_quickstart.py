"""quickstart.py on a Python that is too old: it says so, in place of a SyntaxError."""

import ast
import importlib.util
import sys
from pathlib import Path

FILE = Path(__file__).parents[1] / "quickstart.py"


def load():
    spec = importlib.util.spec_from_file_location("quickstart", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_old_python_parses_it():
    tree = ast.parse(FILE.read_text(), feature_version=(3, 6))
    imported = {
        *(a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names),
        *(n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)),
    }
    # annotations of __future__ came with 3.7
    assert "__future__" not in imported and imported <= sys.stdlib_module_names


def test_an_old_python_is_told_so(monkeypatch, capsys):
    quickstart = load()
    monkeypatch.setattr(sys, "version_info", (3, 6, 15))
    assert quickstart.main(["demo"]) == 1
    assert "Python 3.11 or newer is needed, this is 3.6" in capsys.readouterr().err


def test_usage(capsys):
    quickstart = load()
    assert quickstart.main(["--help"]) == 0 and quickstart.main([]) == 2
    assert "quickstart.py demo" in capsys.readouterr().out
