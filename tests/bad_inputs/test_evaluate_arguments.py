"""`lngswr evaluate`: bad arguments."""

import pytest
import torch

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs.harness import FOREIGN, bad, rows
from tests.bad_inputs.spoil import both, circle, copy, folder, link, move, remove, write
from tests.bad_inputs.worlds import CHECKPOINT, IMAGE, MODEL, PLANS

OUT = ("-o", "ROOT/out")
QUICK = ("--attacks", "noise", "--epsilons", "8/255", "--corruptions", "none", "-device", "cpu")
CASES = ("-m", f"ROOT/{MODEL}", "-i", "ROOT/images", "-l", "ROOT/labels")
HOW = ("--workers", "1", "--disable_progress_bar")
LONG = "9" * 23
NO_CUDA = "" if not torch.cuda.is_available() else "there is CUDA here"


def evaluate(*words: str) -> tuple[str, ...]:
    """What is given twice is taken from its last place."""
    return ("evaluate", *CASES, *OUT, *QUICK, *HOW, *words)


PLACES = [
    bad("no arguments", ["evaluate"], "-m", "-o"),
    bad("no output", ["evaluate", *CASES], "-o"),
    bad("no model", ["evaluate", *OUT], "-m"),
    bad("unknown option", evaluate("--stpes", "3"), "--stpes"),
    bad("model does not exist", evaluate("-m", "ROOT/nowhere"), "ROOT/nowhere", "does not exist"),
    bad("model is a file", evaluate("-m", f"ROOT/{PLANS}"), f"ROOT/{PLANS}"),
    bad("model is empty text", evaluate("-m", ""), "-m"),
    bad("model is the folder above", evaluate("-m", "ROOT"), "ROOT", "plans.json is missing"),
    bad("model is the fold", evaluate("-m", f"ROOT/{MODEL}/fold_0"), "plans.json is missing"),
    bad("model is a circle", evaluate("-m", "ROOT/c"), "ROOT/c", spoil=circle("c")),
    bad("model's name is too long", evaluate("-m", "x" * 300), "name too long"),
    bad(
        "model in a folder with blanks and umlauts",
        evaluate("-m", "ROOT/Mödel 影像 (1)"),
        "ROOT/Mödel 影像 (1)",
        "dataset.json is missing",
        spoil=both(move(MODEL, "Mödel 影像 (1)"), remove("Mödel 影像 (1)/dataset.json")),
    ),
    bad("model's folder is no UTF-8", evaluate("-m", f"ROOT/{FOREIGN}"), "-m", "UTF-8"),
    bad("output is no UTF-8", evaluate("-o", f"ROOT/{FOREIGN}"), "-o", "UTF-8"),
    bad("images do not exist", evaluate("-i", "ROOT/no"), "ROOT/no", "-i"),
    bad("images are a file", evaluate("-i", f"ROOT/{IMAGE}"), f"ROOT/{IMAGE}", "-i"),
    bad("images are empty", evaluate("-i", "ROOT/e"), "ROOT/e", ".nii.gz", spoil=folder("e")),
    bad("images are a circle", evaluate("-i", "ROOT/c"), "ROOT/c", spoil=circle("c")),
    bad("images without labels", ["evaluate", *CASES[:4], *OUT], "-i", "-l"),
    bad("labels without images", ["evaluate", *CASES[:2], *CASES[4:], *OUT], "-i", "-l"),
    bad("labels do not exist", evaluate("-l", "ROOT/no"), "ROOT/no", "-l"),
    bad("labels are a file", evaluate("-l", f"ROOT/{IMAGE}"), f"ROOT/{IMAGE}", "-l"),
    bad("labels are the images", evaluate("-l", "ROOT/images"), "ROOT/images"),
    bad("output is a file", evaluate("-o", f"ROOT/{IMAGE}"), f"ROOT/{IMAGE}", "-o"),
    bad("output below a file", evaluate("-o", f"ROOT/{IMAGE}/a/b"), f"ROOT/{IMAGE}", "-o"),
    bad("output is empty text", evaluate("-o", ""), "-o"),
    bad("output is a circle", evaluate("-o", "ROOT/c"), "ROOT/c", "-o", spoil=circle("c")),
    bad("output below a circle", evaluate("-o", "ROOT/c/a"), "ROOT/c/a", "-o", spoil=circle("c")),
    bad(
        "output is a link to nothing",
        evaluate("-o", "ROOT/l"),
        "ROOT/l",
        "-o",
        spoil=link("l", "no"),
    ),
    bad(
        "output holds something else",
        evaluate(),
        "ROOT/out",
        "cases.csv",
        "--overwrite",
        spoil=write("out/cases.csv", "mine"),
    ),
    bad(
        "output of other settings",
        evaluate(),
        "ROOT/out",
        "--overwrite",
        spoil=both(write("out/cases.csv", "x"), write("out/settings.json", '{"options": {}}')),
    ),
    bad(
        "output whose settings are damaged",
        evaluate(),
        "ROOT/out/settings.json",
        "--overwrite",
        spoil=both(write("out/cases.csv", "x"), write("out/settings.json", '{"options"')),
    ),
    bad(
        "output whose settings are a list",
        evaluate(),
        "ROOT/out/settings.json",
        "--overwrite",
        spoil=both(write("out/cases.csv", "x"), write("out/settings.json", "[1]")),
    ),
    bad("output may not be made", evaluate(), "ROOT/out", refused="."),
    bad("images may not be read", evaluate(), f"ROOT/{IMAGE}", refused=IMAGE),
    bad("plans may not be read", evaluate(), f"ROOT/{PLANS}", refused=PLANS),
    bad("checkpoint may not be read", evaluate(), f"ROOT/{CHECKPOINT}", refused=CHECKPOINT),
    bad(
        "previous stage for no cascade",
        evaluate("-prev_stage_predictions", "ROOT/labels"),
        "previous stage",
    ),
    bad(
        "previous stage does not exist",
        evaluate("-prev_stage_predictions", "ROOT/no"),
        "ROOT/no",
        "-prev_stage_predictions",
    ),
]

MODELS = [
    bad("fold 9", evaluate("-f", "9"), "fold_9", "-f"),
    bad("fold -1", evaluate("-f", "-1"), "-1", "-f"),
    bad("fold x", evaluate("-f", "x"), "x", "-f"),
    bad("fold superscript 2", evaluate("-f", "²"), "²", "-f"),
    bad("fold 0.5", evaluate("-f", "0.5"), "0.5", "-f"),
    bad("fold is empty text", evaluate("-f", ""), "-f"),
    bad("fold all is not there", evaluate("-f", "all"), "fold_all", "-f"),
    bad("no fold after -f", ["evaluate", *CASES, *OUT, "-f"], "-f"),
    bad("fold is a file", evaluate("-f", "1"), "fold_1", spoil=write(f"{MODEL}/fold_1", "x")),
    bad(
        "folds are not numbers",
        evaluate(),
        "checkpoint_final.pth",
        "x",
        spoil=move(f"{MODEL}/fold_0", f"{MODEL}/fold_x"),
    ),
    bad("checkpoint's name", evaluate("-chk", "no.pth"), "no.pth", "-chk"),
    bad("checkpoint's name is empty", evaluate("-chk", ""), "-chk"),
    bad("checkpoint is plans.json", evaluate("-chk", "../plans.json"), "plans.json", "checkpoint"),
    bad("device nosuch", evaluate("-device", "nosuch"), "nosuch", "device"),
    bad("device is empty text", evaluate("-device", ""), "device"),
    bad("device meta", evaluate("-device", "meta"), "meta", "device"),
    bad("device xla", evaluate("-device", "xla"), "xla", "device"),
    bad("device mps", evaluate("-device", "mps"), "mps", "device"),
    bad("device cuda", evaluate("-device", "cuda"), "cuda", "-device cpu", skip=NO_CUDA),
    bad("device cuda:99", evaluate("-device", "cuda:99"), "cuda"),
    bad("device cuda:x", evaluate("-device", "cuda:x"), "cuda:x"),
    bad("surrogate does not exist", evaluate("--surrogate", "ROOT/no"), "ROOT/no"),
    bad("surrogate is a file", evaluate("--surrogate", f"ROOT/{PLANS}"), "plans.json"),
    bad("surrogate is empty text", evaluate("--surrogate", ""), "--surrogate"),
    bad(
        "surrogate without checkpoint",
        evaluate("--surrogate", "ROOT/s"),
        "ROOT/s",
        "checkpoint_final.pth",
        spoil=both(copy(MODEL, "s"), remove("s/fold_0/checkpoint_final.pth")),
    ),
]

PARTS = [
    bad("num_parts 0", evaluate("-num_parts", "0", "-part_id", "0"), "num_parts", "0"),
    bad("num_parts -1", evaluate("-num_parts", "-1", "-part_id", "0"), "num_parts", "-1"),
    bad("num_parts two", evaluate("-num_parts", "two"), "-num_parts", "two"),
    bad("part_id alone", evaluate("-part_id", "1"), "num_parts"),
    bad("part_id too large", evaluate("-num_parts", "2", "-part_id", "2"), "part_id", "0..1"),
    bad("part_id -1", evaluate("-num_parts", "2", "-part_id", "-1"), "part_id", "-1"),
    bad("WORLD_SIZE 0", evaluate(), "WORLD_SIZE", "0", environ={"WORLD_SIZE": "0"}),
    bad("WORLD_SIZE -2", evaluate(), "WORLD_SIZE", "-2", environ={"WORLD_SIZE": "-2"}),
    bad("WORLD_SIZE x", evaluate(), "WORLD_SIZE", "x", environ={"WORLD_SIZE": "x"}),
    bad("WORLD_SIZE is empty", evaluate(), "WORLD_SIZE", environ={"WORLD_SIZE": "", "RANK": "0"}),
    bad(
        "RANK beyond WORLD_SIZE",
        evaluate(),
        "RANK",
        "3",
        environ={"WORLD_SIZE": "2", "RANK": "3"},
    ),
    bad("RANK -1", evaluate(), "RANK", "-1", environ={"WORLD_SIZE": "2", "RANK": "-1"}),
    bad("RANK x", evaluate(), "RANK", "x", environ={"WORLD_SIZE": "2", "RANK": "x"}),
    bad(
        "torchrun and num_parts",
        evaluate("-num_parts", "2"),
        "WORLD_SIZE",
        "num_parts",
        environ={"WORLD_SIZE": "2", "RANK": "0"},
    ),
    bad(
        "LOCAL_RANK x",
        evaluate("-device", "cuda"),
        "cuda:x",
        environ={"LOCAL_RANK": "x", "WORLD_SIZE": "1", "RANK": "0"},
    ),
    bad("workers 0", evaluate("--workers", "0"), "workers", "0"),
    bad("workers -1", evaluate("--workers", "-1"), "workers", "-1"),
    bad("workers two", evaluate("--workers", "two"), "--workers", "two"),
]

TABLE = [*PLACES, *MODELS, *PARTS]


@pytest.mark.parametrize("row", rows(TABLE))
def test_is_refused_in_one_line(row, refuses):
    refuses(main, row, "evaluation")
