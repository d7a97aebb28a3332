"""pyright in basic mode, on both packages (pyproject.toml)."""

import json
import sys

import pytest

from tests.habits.tools import run_tool, said


def test_pyright_finds_no_error():
    # --outputjson: no question to the network whether there is a newer pyright
    words = ["-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = run_tool("pyright", words, distribution="pyright[nodejs]")
    if not done.stdout.lstrip().startswith("{"):
        # without its [nodejs] extra and without Node.js the first run downloads one
        if "nodeenv" in done.stderr or "npm" in done.stderr:
            pytest.skip(f"pyright cannot fetch its Node.js: {done.stderr[-300:]}")
        pytest.fail(f"pyright does not start:{said(done)}")
    report = json.loads(done.stdout)
    errors = [
        f"{e['file']}:{e['range']['start']['line'] + 1}: {e['message']}"
        for e in report["generalDiagnostics"]
        if e["severity"] == "error"
    ]
    assert report["summary"]["filesAnalyzed"] > 50
    assert not errors, "\n".join(errors)
