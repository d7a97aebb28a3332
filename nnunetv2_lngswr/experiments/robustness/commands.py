"""Running a benchmark's commands: in its folders, with a log each, or only saying them."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_lngswr.experiments.robustness.benchmark import Benchmark
from nnunetv2_lngswr.utils.processes import NOTHING, run_command


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def side_by_side(benchmark: Benchmark) -> int:
    """How many of its trainings run at once on this machine."""
    return cores() if benchmark.device == "cpu" and benchmark.dimensions == 2 else 1


@dataclass(frozen=True)
class Commands:
    """Runs the commands of one benchmark."""

    benchmark: Benchmark
    say: Callable[[str], None]
    dry_run: bool = False
    """Say the commands only."""

    @property
    def processes(self) -> str:
        """How many processes nnU-Net shall use to plan and preprocess."""
        return str(min(8, cores()))

    def run(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        *,
        show: str = NOTHING,
    ) -> None:
        """Run one command, or only say it.

        Parameters
        ----------
        name
            Of its log.
        command
            The program and its arguments.
        environment
            Added to this process's, and to what the benchmark sets.
        show
            Regular expression of the lines that are said.

        Raises
        ------
        CommandError
            It failed.
        """
        if self.dry_run:
            self.say(" ".join(["$", *map(str, command)]))
            return
        run_command(
            command,
            self.benchmark.output / "logs" / f"{name}.log",
            environment={**self._environment(), **(environment or {})},
            say=self.say,
            show=show,
        )

    def _environment(self) -> dict[str, str]:
        output = self.benchmark.output
        folders = {key: str(output / key) for key in ("nnUNet_preprocessed", "nnUNet_results")}
        common = {"nnUNet_raw": str(self.benchmark.raw), "MPLBACKEND": "Agg", **folders}
        if self.benchmark.device == "cpu":
            common["nnUNet_compile"] = "f"
        if side_by_side(self.benchmark) > 1:
            # nnUNetv2_train sets as many threads as there are cores whatever this says, so several
            # of them share the cores. Threads that spin while they wait take these from those that
            # work: a train step took 1.5 to 3 times as long (libgomp, two cores).
            common |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
            # each training ends with nnU-Net's validation, which starts 8 processes by default
            common["nnUNet_def_n_proc"] = os.environ.get("nnUNet_def_n_proc", "1")
        return common
