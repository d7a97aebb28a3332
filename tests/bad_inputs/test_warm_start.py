"""`lngswr warm-start`: bad checkpoints and places to write to."""

import pytest
import torch

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import FOREIGN, bad, rows
from tests.bad_inputs.spoil import DROP
from tests.bad_inputs.worlds import CHECKPOINT, MODEL, PLANS

SOURCE = f"ROOT/{CHECKPOINT}"
CONFIGURATION = "init_args.plans.configurations.2d"
KWARGS = f"{CONFIGURATION}.architecture.arch_kwargs"


def warm_start(source: str = SOURCE, destination: str = "ROOT/out.pth") -> tuple[str, ...]:
    return ("warm-start", source, destination)


def holds(name: str, keys: str, value, *says: str):
    change = spoil.change_checkpoint(CHECKPOINT, {keys: value})
    return bad(f"checkpoint: {name}", warm_start(), "checkpoint_final.pth", *says, spoil=change)


def is_file(name: str, change, *says: str):
    return bad(f"checkpoint is {name}", warm_start(), "checkpoint_final.pth", *says, spoil=change)


def in_entry(value) -> spoil.Spoil:
    return spoil.change_checkpoint(CHECKPOINT, {f"{CONFIGURATION}.lngswr": value})


PLACES = [
    bad("no arguments", ["warm-start"], "VANILLA.pth"),
    bad("no destination", ["warm-start", SOURCE], "OUT.pth"),
    bad("source does not exist", warm_start("ROOT/no.pth"), "ROOT/no.pth"),
    bad("source is a folder", warm_start(f"ROOT/{MODEL}"), f"ROOT/{MODEL}"),
    bad("source is empty text", warm_start(""), "VANILLA.pth"),
    bad("source is plans.json", warm_start(f"ROOT/{PLANS}"), "plans.json"),
    bad("destination is the source", warm_start(destination=SOURCE), "checkpoint_final.pth"),
    bad(
        "destination is a link to the source",
        warm_start(destination="ROOT/l.pth"),
        "ROOT/l.pth",
        spoil=spoil.link("l.pth", CHECKPOINT),
    ),
    bad("destination is a folder", warm_start(destination=f"ROOT/{MODEL}"), f"ROOT/{MODEL}"),
    bad("destination's folder is missing", warm_start(destination="ROOT/no/x.pth"), "ROOT/no"),
    bad("destination below a file", warm_start(destination=f"ROOT/{PLANS}/x.pth"), PLANS),
    bad("destination is no UTF-8", warm_start(destination=f"ROOT/{FOREIGN}"), "OUT.pth", "UTF-8"),
    bad("destination is empty text", warm_start(destination=""), "OUT.pth"),
    bad(
        "destination is a circle",
        warm_start(destination="ROOT/c"),
        "ROOT/c",
        spoil=spoil.circle("c"),
    ),
    bad("destination may not be written", warm_start(), "ROOT", refused="."),
    bad("source may not be read", warm_start(), SOURCE, refused=CHECKPOINT),
]

FILES = [
    is_file("empty", spoil.write(CHECKPOINT, b"")),
    is_file("cut in half", spoil.cut(CHECKPOINT)),
    is_file("text", spoil.write(CHECKPOINT, "weights")),
    is_file("a circle", spoil.circle(CHECKPOINT)),
    is_file("a tensor", spoil.save_torch(CHECKPOINT, torch.zeros(2))),
    is_file("objects", spoil.save_torch(CHECKPOINT, {"a": print}), "print"),
]

CONTENTS = [
    holds("init_args are None", "init_args", None, "init_args"),
    holds("init_args are a list", "init_args", [1], "init_args"),
    holds("init_args are empty", "init_args", {}, "init_args", "plans"),
    holds("weights are None", "network_weights", None, "network_weights"),
    holds("weights are a list", "network_weights", [1], "network_weights"),
    holds("no weights", "network_weights", {}, "weights"),
    holds("weights are numbers", "network_weights", {"encoder.x": 1}, "network_weights"),
    holds(
        "weights of another shape",
        "network_weights",
        lambda w: {k: torch.zeros(1) for k in w},
        "architecture",
    ),
    holds(
        "weights hold NaN",
        "network_weights",
        lambda w: {k: v * float("nan") for k, v in w.items()},
        "NaN",
    ),
    holds(
        "LNG-SWR already",
        "network_weights",
        lambda w: {**w, "lngswr.x": torch.zeros(1)},
        "-pretrained_weights",
    ),
    holds("without plans", "init_args.plans", DROP, "plans"),
    holds("plans are None", "init_args.plans", None, "plans"),
    holds("plans are a list", "init_args.plans", [1], "plans"),
    holds("plans are empty", "init_args.plans", {}, "plans"),
    holds("without configurations", "init_args.plans.configurations", DROP, "configurations"),
    holds("another configuration", "init_args.configuration", "3d_fullres", "3d_fullres"),
    holds("configuration None", "init_args.configuration", None, "configuration"),
    holds("inherits from nothing", f"{CONFIGURATION}.inherits_from", "3d", "3d"),
    holds("without architecture", f"{CONFIGURATION}.architecture", DROP, "architecture"),
    holds(
        "unknown network class",
        f"{CONFIGURATION}.architecture.network_class_name",
        "no.Such",
        "no.Such",
    ),
    holds(
        "network class is a function",
        f"{CONFIGURATION}.architecture.network_class_name",
        "os.system",
        "os.system",
    ),
    holds("an unknown argument", f"{KWARGS}.colour", "red", "colour"),
    holds("features below 0", f"{KWARGS}.features_per_stage", [-4, 8]),
    holds("stages as text", f"{KWARGS}.n_stages", "two"),
    holds("dataset_json is None", "init_args.dataset_json", None, "dataset_json"),
    holds("dataset_json without channels", "init_args.dataset_json.channel_names", DROP, "channel"),
    holds("dataset_json without labels", "init_args.dataset_json.labels", DROP, "labels"),
    holds("labels as text", "init_args.dataset_json.labels.ball", "one", "label"),
    *(
        bad(f"checkpoint: {name}", warm_start(), *says, spoil=in_entry(value))
        for name, value, *says in [
            ("entry is a list", [1], "lngswr"),
            ("entry's key is unknown", {"gain": 1}, "gain", "gains"),
            ("entry's value", {"gate_init": 7}, "gate_init", "7"),
            ("entry's gains for other axes", {"gains": [0.1, 0.2, 0.3, 0.4, 0.5]}, "gains"),
        ]
    ),
]

TABLE = [*PLACES, *FILES, *CONTENTS]


@pytest.mark.parametrize("row", rows(TABLE))
def test_is_refused_in_one_line(row, refuses):
    refuses(main, row, "evaluation")
