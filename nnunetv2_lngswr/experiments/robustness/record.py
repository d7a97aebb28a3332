"""runs.json: all that was ever begun in the folder of a benchmark, whatever a call is told to add.

The table is made of it, so that a call with fewer arms does not drop those of earlier calls.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_lngswr.experiments.robustness.benchmark import Benchmark, TrainingRun
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file

RECORD = "runs.json"
_EARLIER = "robustness.json"  # folders of earlier versions have no other
_FIELDS = [field.name for field in dataclasses.fields(TrainingRun)]

Arms = Mapping[str, Mapping[str, Any]]


def read_record(benchmark: Benchmark) -> tuple[list[TrainingRun], dict[str, Mapping[str, Any]]]:
    """Return the runs that were trained and evaluated, and the arms by name."""
    runs, arms = _read(benchmark)
    return [
        run for run in runs if (benchmark.evaluation_folder(run) / "summary.json").is_file()
    ], arms


def epochs_at_equal_time(benchmark: Benchmark) -> dict[str, int]:
    """{arm: epochs} of the runs at equal time that were begun: another number would be another arm.

    Times change from call to call.
    """
    return dict(run.at_equal_time for run in _read(benchmark)[0] if run.at_equal_time)


def check_record(benchmark: Benchmark, arms: Arms) -> None:
    """Raise UserError where an arm had other settings before: one name cannot stand for two."""
    known = _read(benchmark)[1]
    for name, arm in arms.items():
        if name in known and known[name] != json.loads(json.dumps(arm)):
            raise UserError(
                f"variant {name} has other settings than before ({json.dumps(known[name])} in "
                f"{benchmark.output}): give it another name"
            )


def add_to_record(benchmark: Benchmark, runs: Sequence[TrainingRun], arms: Arms) -> None:
    """Note runs; those of the same arm, seed and fold take the place of earlier ones."""
    earlier, known = _read(benchmark)
    by_what = {(run.arm, run.seed, run.fold): run for run in [*earlier, *runs]}
    runs_now = [dataclasses.asdict(run) for run in by_what.values()]
    record = {"arms": known | dict(arms), "runs": runs_now}
    write_file(benchmark.output / RECORD, json.dumps(record, indent=1) + "\n")


def _read(benchmark: Benchmark) -> tuple[list[TrainingRun], dict[str, Mapping[str, Any]]]:
    for name in (RECORD, _EARLIER):
        file = benchmark.output / name
        if file.is_file():
            record = read_json(file, needs=("arms", "runs"))
            runs = [TrainingRun(**{key: run[key] for key in _FIELDS}) for run in record["runs"]]
            return runs, record["arms"]
    return [], {}
