"""Template, styles, scripts and data into one file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from evaluation.report.formats import interval_text, json_ready, number_text, percent_text
from evaluation.report.templates import template_environment

ASSETS = Path(__file__).with_name("assets")
# npm's plotly.js-basic-dist-min, as it was published; its licence (MIT) is beside it
PLOTLY, PLOTLY_VERSION = "plotly-basic.min.js", "4.1.1"
PLOTLY_SHA256 = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
SCRIPTS = ("report.js", "charts.js", "case_table.js", "cases.js", "viewer.js", "page.js")


def page_text(
    content: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    template: str = "page.html.jinja",
    scripts: Sequence[str] = (PLOTLY, *SCRIPTS),
) -> str:
    """The content of a report.html.

    Parameters
    ----------
    content
        What the template names.
    data
        For the scripts: charts, cases and pictures, JSON-ready but for nan.
    template, scripts
        Of assets, the scripts in their order; those of an evaluation or a comparison.
    """
    return (
        _environment()
        .get_template(template)
        .render(**content, data=json_ready(data), scripts=scripts)
    )


@functools.cache
def _environment() -> Environment:
    environment = template_environment(ASSETS)
    # |tojson also escapes what would end a script element
    environment.policies["json.dumps_kwargs"] = {
        "sort_keys": False,
        "allow_nan": False,
        "separators": (",", ":"),
    }
    environment.filters |= {
        "interval": interval_text,
        "percent": percent_text,
        "number": number_text,
    }
    environment.globals["asset"] = _asset
    return environment


@functools.cache
def _asset(name: str) -> Markup:
    """A file of ours or plotly.js as it stands; nothing of it comes from an evaluation."""
    return Markup((ASSETS / name).read_text(encoding="utf-8"))
