"""`lngswr score`: bad arguments, files that do not belong together, damaged files."""

import numpy as np
import pytest

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import FOREIGN, NO_SUCH_NAMES, bad, rows
from tests.bad_inputs.spoil import DROP
from tests.evaluation.scoring.files import GEOMETRY, SHAPE, truth

A, B, L = "ROOT/a", "ROOT/b", "ROOT/labels"
FILE, LABEL, NPZ = "a/p0_0.nii.gz", "labels/p0_0.nii.gz", "a/p0_0.npz"
"""Of the first case: what is scored before a bad file is kept."""
DATASET = ("-djfile", "ROOT/dataset.json")
PLANS = "nnUNetTrainer__nnUNetPlans__2d/plans.json"


def score(*words: str, p=(A, B), labels=L, out="ROOT/out") -> tuple[str, ...]:
    return ("score", "-p", *p, "-l", labels, "-o", out, "-np", "1", *words)


def image(path: str, array=None, **geometry):
    array = truth(0) if array is None else array
    return spoil.image(path, array.astype(np.uint8), **{**GEOMETRY, **geometry})


def npz(**arrays):
    return lambda root: np.savez_compressed(root / NPZ, **arrays)


def writable_output(root) -> None:
    """For every user, so that one without rights comes as far as the files."""
    (root / "out").mkdir()
    (root / "out").chmod(0o777)


def change_npz(change):
    def spoiled(root) -> None:
        with np.load(root / NPZ) as content:
            found = content["probabilities"]
        np.savez_compressed(root / NPZ, probabilities=change(found))

    return spoiled


def single_array(root) -> None:
    """A .npy under the name of a .npz."""
    with open(root / NPZ, "wb") as file:
        np.save(file, np.zeros((3, 2, 2, 2)))


ARGUMENTS = [
    bad("no predictions", ["score", "-l", L, "-o", "ROOT/out"], "-p"),
    bad("no labels", ["score", "-p", A, "-o", "ROOT/out"], "-l"),
    bad("no output", ["score", "-p", A, "-l", L], "-o"),
    bad("predictions do not exist", score(p=["ROOT/no"]), "ROOT/no", "-p"),
    bad("predictions are a file", score(p=[f"ROOT/{FILE}"]), FILE, "-p"),
    bad("predictions are empty text", score(p=[""]), "-p"),
    bad("predictions are a circle", score(p=["ROOT/c"]), "ROOT/c", spoil=spoil.circle("c")),
    bad("nothing among commas", score(p=[f"{A},,{B}"]), ",", "-p"),
    bad("a case in two folds", score(p=[f"{A},{B}"]), "p0_0", "twice"),
    bad("labels do not exist", score(labels="ROOT/no"), "ROOT/no", "-l"),
    bad("labels are predictions", score(labels=A), "ROOT/a", "-l"),
    bad("output is a file", score(out=f"ROOT/{FILE}"), FILE, "-o"),
    bad("output is a prediction folder", score(out=B), "ROOT/b", "-o"),
    bad("output is the label folder", score(out=L), "ROOT/labels", "-o"),
    bad(
        "output has nnU-Net's summary",
        score(),
        "out/summary.json",
        "-o",
        spoil=spoil.write("out/summary.json", '{"foreground_mean": {}}'),
    ),
    bad(
        "output has a comparison",
        score(),
        "out",
        "compare.json",
        "-o",
        spoil=spoil.write("out/compare.json", "{}"),
    ),
    bad("names of one", score("--names", "x"), "--names", "2"),
    bad("names alike", score("--names", "x", "x"), "--names", "x"),
    bad("tolerance -1", score("--tolerance", "-1"), "--tolerance", "-1"),
    bad("tolerance nan", score("--tolerance", "nan"), "--tolerance", "nan"),
    bad("tolerance x", score("--tolerance", "x"), "--tolerance", "x"),
    bad("lesion IoU 0", score("--lesion-iou", "0"), "--lesion-iou", "0"),
    bad("lesion IoU 10", score("--lesion-iou", "10"), "--lesion-iou", "10"),
    bad("no processes", score("-np", "0"), "-np", "0"),
    bad("seed -1", score("--seed", "-1"), "seed", "-1"),
    bad("ignore label 0", score("-il", "0"), "-il", "0"),
    bad("two ignore labels", score("-il", "3", *DATASET), "-djfile", "-il"),
    bad("plans alone", score("-pfile", f"ROOT/{PLANS}"), "-pfile", "-djfile"),
    bad("groups: no expression", score("--groups", "("), "("),
    bad("groups: nothing found", score("--groups", "^x"), "^x", "p0_0"),
    bad("groups: no table", score("--groups", "ROOT/no.csv"), "ROOT/no.csv"),
    bad(
        "groups: a case without a row",
        score("--groups", "ROOT/g.csv"),
        "p0_1",
        spoil=spoil.write("g.csv", "case,patient\np0_0,1\n"),
    ),
]

DESCRIPTIONS = [
    bad("no dataset.json", score("-djfile", "ROOT/no.json"), "ROOT/no.json", "-djfile"),
    bad("no plans.json", score("-pfile", "ROOT/no.json", *DATASET), "ROOT/no.json", "-pfile"),
    bad("dataset.json is cut", score(*DATASET), "dataset.json", spoil=spoil.cut("dataset.json")),
    bad(
        "dataset.json is a list",
        score(*DATASET),
        "dataset.json",
        spoil=spoil.write("dataset.json", "[1]"),
    ),
    *(
        bad(
            f"dataset.json: {key} {value}",
            score(*DATASET),
            "dataset.json",
            key,
            spoil=spoil.change_json("dataset.json", {key: value}),
        )
        for key in ("labels", "file_ending")
        for value in (DROP, 3)
    ),
    bad(
        "dataset.json of other files",
        score(*DATASET),
        "labels",
        ".png",
        ".nii.gz",
        spoil=spoil.change_json("dataset.json", {"file_ending": ".png"}),
    ),
    bad(
        "dataset.json of fewer labels",
        score(*DATASET),
        "labels/p0_0",
        "[2]",
        "dataset.json",
        spoil=spoil.change_json("dataset.json", {"labels": {"background": 0, "organ": 1}}),
    ),
    bad(
        "an unknown label manager",
        score(*DATASET, "-pfile", f"ROOT/{PLANS}"),
        "plans.json",
        "label manager",
        spoil=spoil.change_json(PLANS, {"label_manager": "NoSuchManager"}),
    ),
]

FILES = [
    bad("no label", score(), "ROOT/labels", "-l", spoil=spoil.folder("labels")),
    bad("no prediction", score(), "ROOT/a", "-p", spoil=spoil.folder("a")),
    bad(
        "labels of two endings",
        score(),
        "ROOT/labels",
        ".png",
        "-djfile",
        spoil=spoil.write("labels/x.png", ""),
    ),
    bad(
        "a prediction is missing",
        score(),
        "p0_0",
        "ROOT/a",
        "--chill",
        spoil=spoil.remove(FILE),
    ),
    bad(
        "a prediction too many",
        score(),
        "extra",
        "ROOT/a",
        spoil=spoil.copy(FILE, "a/extra.nii.gz"),
    ),
    bad(
        "no case that both have",
        score("--chill"),
        "every model",
        spoil=spoil.both(
            *(spoil.remove(f"a/{c}.nii.gz") for c in ("p0_0", "p0_1")),
            spoil.remove("b/p1_2.nii.gz"),
        ),
    ),
    bad(
        "a name that is no UTF-8",
        score(),
        "UTF-8",
        spoil=lambda root: (root / FILE).rename(root / "a" / f"{FOREIGN}.nii.gz"),
        skip=NO_SUCH_NAMES,
    ),
    bad("a prediction is cut", score(), FILE, spoil=spoil.cut(FILE)),
    bad("a prediction is text", score(), FILE, spoil=spoil.write(FILE, "no image")),
    bad("the first label is cut", score(), "labels/p0_0", spoil=spoil.cut("labels/p0_0.nii.gz")),
    bad("a prediction may not be read", score(), FILE, refused=FILE, spoil=writable_output),
    bad("output may not be written", score(), "ROOT/out", refused=FILE),
    bad("another shape", score(), FILE, LABEL, "shape", spoil=image(FILE, truth(0)[:, :-1])),
    bad("another spacing", score(), FILE, LABEL, "spacing", spoil=image(FILE, spacing=(1, 1, 2))),
    bad("another origin", score(), FILE, LABEL, "origin", spoil=image(FILE, origin=(9, 9, 9))),
    bad(
        "another direction",
        score(),
        FILE,
        LABEL,
        "direction",
        spoil=image(FILE, direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1)),
    ),
    bad(
        "an unknown label", score(*DATASET), FILE, "[7]", spoil=image(FILE, 7 * truth(0).clip(0, 1))
    ),
    bad(
        "an image instead of labels",
        score(),
        FILE,
        "0.5",
        spoil=spoil.image(FILE, truth(0) / 2, **GEOMETRY),
    ),
    bad(
        "a label that is not finite",
        score(),
        LABEL,
        "NaN",
        spoil=spoil.image(LABEL, np.where(truth(0) == 2, np.nan, 1.0), **GEOMETRY),
    ),
    bad(
        "nothing but background",
        score(p=[A]),
        "background",
        spoil=spoil.both(
            *(
                image(f"{d}/{c}.nii.gz", np.zeros(SHAPE))
                for d in ("a", "labels")
                for c in ("p0_0", "p0_1", "p1_2")
            )
        ),
        leaves="out",
    ),
]

PROBABILITIES = [
    bad("no probabilities", score("--npz"), NPZ, "--npz", spoil=spoil.remove(NPZ)),
    bad("probabilities are cut", score("--npz"), NPZ, spoil=spoil.cut(NPZ)),
    bad("probabilities are text", score("--npz"), NPZ, spoil=spoil.write(NPZ, "text")),
    bad("a single array", score("--npz"), NPZ, spoil=single_array),
    bad("another name", score("--npz"), NPZ, "softmax", spoil=npz(softmax=np.ones(3))),
    bad("objects", score("--npz"), NPZ, spoil=npz(probabilities=np.array([{}], dtype=object))),
    bad("of one number", score("--npz"), NPZ, spoil=npz(probabilities=np.array(1.0))),
    bad("of another shape", score("--npz"), NPZ, FILE, spoil=change_npz(lambda p: p[:, 1:])),
    bad(
        "of fewer channels",
        score("--npz", *DATASET),
        NPZ,
        "2",
        "3",
        spoil=change_npz(lambda p: np.stack([p[0], p[1] + p[2]])),
    ),
    bad("logits", score("--npz"), NPZ, "logits", spoil=change_npz(lambda p: 9 * p - 5)),
    bad(
        "not finite", score("--npz"), NPZ, spoil=change_npz(lambda p: np.where(p > 0.9, np.nan, p))
    ),
    bad("of regions", score("--npz"), NPZ, "-djfile", spoil=change_npz(lambda p: p / 2)),
    bad(
        "of another prediction",
        score("--npz"),
        NPZ,
        FILE,
        "probabilities say",
        spoil=change_npz(lambda p: p[:, ::-1]),
    ),
    bad("postprocessed", score("--npz"), NPZ, FILE, "postprocessed", spoil=image(FILE)),
]


@pytest.mark.parametrize("row", rows([*ARGUMENTS, *DESCRIPTIONS, *FILES, *PROBABILITIES]))
def test_score_refuses(row, refuses):
    refuses(main, row, "scores")
