"""Peak memory of a training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lngswr.experiments.overhead import RETURN_MEMORY

MEMORY = """
from nnunetv2_lngswr.experiments.overhead import peak_memory
for batch in (1, 64):
    print(peak_memory("LNG-SWR", {"batch": batch, "patch": (64, 64), "features": (16, 32)}, "cpu"))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="read from /proc")
def test_peak_memory_grows_with_what_is_kept():
    # in a process of its own: this one may have been larger before
    out = subprocess.run(
        [sys.executable, "-c", MEMORY],
        cwd=Path(__file__).parents[3],
        env={**os.environ, **RETURN_MEMORY},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    small, large = map(float, out.splitlines()[-2:])
    # x, its noisy and its reconstructed version at the first stage alone: 63 x 16 x 64 x 64 floats
    assert 0 < small < large - 3 * 15
