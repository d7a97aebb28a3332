"""`lngswr register` and `unregister`: an nnU-Net that is missing, of another version, or in use."""

import pytest

from nnunetv2_lngswr.cli.main import main
from nnunetv2_lngswr.installation.register import PLANNER_SHIM_NAME, SHIM_NAME
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import bad, rows
from tests.installation.stand_in import make_nnunet, put_first

TRAINERS = "nnunetv2/training/nnUNetTrainer"
SHIM = f"{TRAINERS}/{SHIM_NAME}"
PLANNER = f"nnunetv2/experiment_planning/{PLANNER_SHIM_NAME}"


def nnunet(version: str | None = "2.8.1"):
    return lambda root: make_nnunet(root, version)


def register(name: str, change, *says: str, command: str = "register", **more):
    return bad(f"{command}: {name}", [command], *says, spoil=change, **more)


TABLE = [
    bad("unknown command", ["regsiter"], "regsiter"),
    bad("an argument too many", ["register", "now"], "now"),
    register("too old", nnunet("2.7"), "2.7", "2.8"),
    register("too new", nnunet("3.0"), "3.0", "pip install"),
    register(
        "without trainers",
        spoil.both(nnunet(), spoil.remove(f"{TRAINERS}/nnUNetTrainer.py")),
        TRAINERS,
    ),
    *(
        register(name, spoil.both(nnunet(), change(path)), path, command=command)
        for command in ("register", "unregister")
        for path in (SHIM, PLANNER)
        for name, change in [
            (f"{path[-14:]} is another file", lambda p: spoil.write(p, "mine")),
            (f"{path[-14:]} is a folder", spoil.folder),
            (f"{path[-14:]} is a link to nothing", lambda p: spoil.link(p, "no")),
            (f"{path[-14:]} is a circle", spoil.circle),
        ]
    ),
]


@pytest.mark.parametrize("row", rows(TABLE))
def test_is_refused_in_one_line(row, refuses, monkeypatch):
    def first(argv: list[str]) -> int:
        from pathlib import Path

        put_first(monkeypatch, Path.cwd())
        return main(argv)

    refuses(first, row, "nothing")
