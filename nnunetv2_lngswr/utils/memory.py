"""How much memory this process has taken, on every system that nnU-Net runs on."""

import sys
from pathlib import Path


def peak_memory() -> int:
    """Return the most memory that this process has had at once so far, in bytes."""
    if sys.platform == "win32":
        return _peak_of_windows()
    if sys.platform == "linux":
        # not ru_maxrss: a new process starts at the peak of the one that forked it
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, all others in KiB
    return peak if sys.platform == "darwin" else peak * 1024


def _peak_of_windows() -> int:
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS."""

        _fields_ = [
            ("cb", wintypes.DWORD),
            ("page_faults", wintypes.DWORD),
            *((name, ctypes.c_size_t) for name in ("peak_working_set", "working_set")),
            *((f"quota_{i}", ctypes.c_size_t) for i in range(4)),
            *((name, ctypes.c_size_t) for name in ("pagefile", "peak_pagefile")),
        ]

    counters = Counters(cb=ctypes.sizeof(Counters))
    kernel = ctypes.windll.kernel32  # pyright: ignore[reportAttributeAccessIssue]
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    read = kernel.K32GetProcessMemoryInfo
    read.argtypes = [wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD]
    if not read(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
        raise OSError("Windows does not say how much memory this process has taken")
    return int(counters.peak_working_set)
