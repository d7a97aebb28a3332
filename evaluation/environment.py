"""Versions of what figures depend on, for records and reports."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import nnunetv2_lngswr

SCORING = ("nnunetv2", "monai", "numpy", "scipy")
"""Packages that scores depend on."""
EVALUATING = (
    "nnunetv2_lngswr",
    "nnunetv2",
    "torch",
    "numpy",
    "scipy",
    "monai",
    "batchgeneratorsv2",
    "torchio",
    "torchattacks",
)
"""Packages that an evaluation depends on."""


def versions(packages: Iterable[str]) -> dict[str, str]:
    """{package: version} of those that are installed; ours is that of the code that runs."""
    own, found = {nnunetv2_lngswr.__name__: nnunetv2_lngswr.__version__}, {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = own.get(package) or version(package)
    return found
