"""`lngswr evaluate`: bad plans.json, dataset.json and checkpoints."""

import pytest
import torch

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import bad, rows
from tests.bad_inputs.spoil import DROP
from tests.bad_inputs.test_evaluate_arguments import evaluate
from tests.bad_inputs.worlds import CHECKPOINT, DATASET, MODEL, PLANS

CONFIGURATION = "configurations.2d"
ARCHITECTURE = f"{CONFIGURATION}.architecture"
KWARGS = f"{ARCHITECTURE}.arch_kwargs"
DEEP = "[" * 100_000


def as_file(path: str) -> list:
    """Whatever can be wrong with a JSON file of the model."""
    name = f"ROOT/{path}"
    short = path.rsplit("/", 1)[1]
    contents = {
        "empty": "",
        "a list": "[1, 2]",
        "a number": "3",
        "null": "null",
        "a text": '"plans"',
        "binary": bytes(range(256)),
        "Latin-1": '{"plans_name": "Schilddrüse"}'.encode("latin-1"),
        "UTF-16": '{"plans_name": "x"}'.encode("utf-16"),
        "two documents": "{}{}",
        "an empty object": "{}",
        "nested too deep": DEEP,
        "a page of HTML": "<!DOCTYPE html><html>404</html>",
        "a pointer of LFS": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    }
    return [
        bad(f"{short} is missing", evaluate(), f"{short} is missing", spoil=spoil.remove(path)),
        bad(f"{short} is a folder", evaluate(), short, spoil=spoil.folder(path)),
        bad(f"{short} is a circle", evaluate(), short, spoil=spoil.circle(path)),
        bad(f"{short} ends early", evaluate(), name, "JSON", spoil=spoil.cut(path)),
        *(
            bad(f"{short} is {what}", evaluate(), name, spoil=spoil.write(path, content))
            for what, content in contents.items()
        ),
    ]


def plans(name: str, keys: str, value, *says: str):
    change = spoil.change_json(PLANS, {keys: value})
    return bad(f"plans: {name}", evaluate(), "plans.json", *says, spoil=change)


def dataset(name: str, keys: str, value, *says: str):
    change = spoil.change_json(DATASET, {keys: value})
    return bad(f"dataset: {name}", evaluate(), "dataset.json", *says, spoil=change)


def checkpoint(name: str, keys: str, value, *says: str):
    change = spoil.change_checkpoint(CHECKPOINT, {keys: value})
    return bad(f"checkpoint: {name}", evaluate(), "checkpoint_final.pth", *says, spoil=change)


OF_PLANS = [
    plans("without configurations", "configurations", DROP, "configurations"),
    plans("configurations are a list", "configurations", ["2d"], "configurations"),
    plans("no configuration", "configurations", {}, "2d"),
    plans("configuration is null", CONFIGURATION, None, "2d"),
    plans("configuration is a list", CONFIGURATION, [1], "2d"),
    plans("inherits from nothing", f"{CONFIGURATION}.inherits_from", "3d", "3d"),
    plans("inherits from itself", f"{CONFIGURATION}.inherits_from", "2d", "2d"),
    plans("without dataset_name", "dataset_name", DROP, "dataset_name"),
    plans("dataset_name is a number", "dataset_name", 7, "dataset_name"),
    plans("without patch", f"{CONFIGURATION}.patch_size", DROP, "patch_size"),
    plans("patch of 7 axes", f"{CONFIGURATION}.patch_size", [16] * 7, "patch_size"),
    plans("patch of 1 axis", f"{CONFIGURATION}.patch_size", [16], "patch_size"),
    plans("patch of 0", f"{CONFIGURATION}.patch_size", [0, 16], "patch_size"),
    plans("patch below 0", f"{CONFIGURATION}.patch_size", [-16, 16], "patch_size"),
    plans("patch of texts", f"{CONFIGURATION}.patch_size", ["a", "b"], "patch_size"),
    plans("patch of halves", f"{CONFIGURATION}.patch_size", [16.5, 16], "patch_size"),
    plans("patch is a number", f"{CONFIGURATION}.patch_size", 16, "patch_size"),
    plans("patch is huge", f"{CONFIGURATION}.patch_size", [10**9, 10**9], "patch_size", "voxels"),
    plans("patch of 4000 digits", f"{CONFIGURATION}.patch_size", [10**3999] * 2, "patch_size"),
    plans("without spacing", f"{CONFIGURATION}.spacing", DROP, "spacing"),
    plans("spacing 0", f"{CONFIGURATION}.spacing", [0, 1], "spacing"),
    plans("spacing below 0", f"{CONFIGURATION}.spacing", [-1, 1], "spacing"),
    plans("spacing NaN", f"{CONFIGURATION}.spacing", [float("nan"), 1], "spacing"),
    plans("spacing of texts", f"{CONFIGURATION}.spacing", ["1", "1"], "spacing"),
    plans("spacing of 5 axes", f"{CONFIGURATION}.spacing", [1] * 5, "spacing"),
    plans("spacing is tiny", f"{CONFIGURATION}.spacing", [1e-9, 1e-9], "spacing", "voxels"),
    plans("spacing of 400 digits", f"{CONFIGURATION}.spacing", [10**400, 1], "spacing"),
    plans("without normalisation", f"{CONFIGURATION}.normalization_schemes", DROP, "normali"),
    plans("unknown normalisation", f"{CONFIGURATION}.normalization_schemes", ["NoNorm"], "NoNorm"),
    plans("normalisation is null", f"{CONFIGURATION}.normalization_schemes", [None], "normali"),
    plans("no normalisation", f"{CONFIGURATION}.normalization_schemes", [], "normali"),
    plans("without use_mask", f"{CONFIGURATION}.use_mask_for_norm", DROP, "use_mask_for_norm"),
    plans("resampling", f"{CONFIGURATION}.resampling_fn_data", "os.system", "resampling_fn_data"),
    plans("resampling is null", f"{CONFIGURATION}.resampling_fn_seg", None, "resampling_fn_seg"),
    plans("preprocessor", f"{CONFIGURATION}.preprocessor_name", "Nope", "preprocessor"),
    plans("without preprocessor", f"{CONFIGURATION}.preprocessor_name", DROP, "preprocessor"),
    plans("without architecture", ARCHITECTURE, DROP, "architecture"),
    plans("architecture is null", ARCHITECTURE, None, "architecture"),
    plans("without a network class", f"{ARCHITECTURE}.network_class_name", DROP, "network_class"),
    plans("unknown network class", f"{ARCHITECTURE}.network_class_name", "no.Such", "no.Such"),
    plans("network class is a number", f"{ARCHITECTURE}.network_class_name", 3, "network_class"),
    plans(
        "network class is a function",
        f"{ARCHITECTURE}.network_class_name",
        "os.system",
        "os.system",
    ),
    plans("without arguments", f"{ARCHITECTURE}.arch_kwargs", DROP, "arch_kwargs"),
    plans("arguments are a list", f"{ARCHITECTURE}.arch_kwargs", [], "arch_kwargs"),
    plans("an unknown argument", f"{KWARGS}.colour", "red", "colour"),
    plans("an argument is missing", f"{KWARGS}.n_stages", DROP, "n_stages"),
    plans("stages as text", f"{KWARGS}.n_stages", "two"),
    plans("stages 0", f"{KWARGS}.n_stages", 0),
    plans("features below 0", f"{KWARGS}.features_per_stage", [-4, 8]),
    plans("too few features", f"{KWARGS}.features_per_stage", [4]),
    plans("unknown convolution", f"{KWARGS}.conv_op", "torch.nn.Nope", "torch.nn.Nope"),
    plans("convolution of 3 axes", f"{KWARGS}.conv_op", "torch.nn.modules.conv.Conv3d", "2d"),
    plans(
        "without what is imported", f"{ARCHITECTURE}._kw_requires_import", DROP, "requires_import"
    ),
    plans("imports what is not there", f"{ARCHITECTURE}._kw_requires_import", ["nope"], "nope"),
    plans("unknown reader", "image_reader_writer", "NoReader", "NoReader"),
    plans("without reader", "image_reader_writer", DROP, "image_reader_writer"),
    plans("reader is null", "image_reader_writer", None, "image_reader_writer"),
    plans("transpose twice the same", "transpose_forward", [0, 0, 0], "transpose_forward"),
    plans("transpose of two axes", "transpose_forward", [0, 1], "transpose_forward"),
    plans("transpose of texts", "transpose_forward", ["z", "y", "x"], "transpose_forward"),
    plans("without transpose", "transpose_forward", DROP, "transpose_forward"),
    plans("unknown label manager", "label_manager", "Nope", "Nope"),
    bad(
        "plans: CT without intensities",
        evaluate(),
        "plans.json",
        "intensity",
        spoil=spoil.change_json(
            PLANS,
            {
                f"{CONFIGURATION}.normalization_schemes": ["CTNormalization"],
                "foreground_intensity_properties_per_channel": {},
            },
        ),
    ),
]

OF_DATASET = [
    dataset("without channels", "channel_names", DROP, "channel_names"),
    dataset("no channels", "channel_names", {}, "channel_names"),
    dataset("channels are a number", "channel_names", 1, "channel_names"),
    bad(
        "dataset: one channel more",
        evaluate(),
        "channel",
        spoil=spoil.change_json(DATASET, {"channel_names.1": "MR"}),
    ),
    dataset("without labels", "labels", DROP, "labels"),
    dataset("labels are a list", "labels", ["background", "ball"], "labels"),
    dataset("labels are null", "labels", None, "labels"),
    dataset("no labels", "labels", {}, "labels"),
    dataset("only background", "labels", {"background": 0}, "labels"),
    dataset("without background", "labels", {"ball": 1}, "background"),
    dataset("label as text", "labels.ball", "one", "ball"),
    dataset("label below 0", "labels.ball", -1, "ball"),
    dataset("label 1.5", "labels.ball", 1.5, "ball"),
    dataset("label is null", "labels.ball", None, "ball"),
    bad(
        "dataset: one label more",
        evaluate(),
        "checkpoint_final.pth",
        spoil=spoil.change_json(DATASET, {"labels.other": 2}),
    ),
    dataset("two of one value", "labels.other", 1, "other", "ball"),
    dataset("two of one value, one as text", "labels.other", "1", "other", "ball"),
    dataset("one of the background's value", "labels.other", 0, "other", "background"),
    dataset("ignore is another label", "labels.ignore", 1, "ignore", "ball"),
    dataset("label of 400 digits", "labels.ball", 10**400, "ball"),
    dataset("labels with a gap", "labels.ball", 3, "label"),
    dataset("regions without an order", "labels.ball", [1, 2], "regions_class_order"),
    dataset("ignore in between", "labels", {"background": 0, "ignore": 1, "ball": 2}, "ignore"),
    dataset("without file ending", "file_ending", DROP, "file_ending"),
    dataset("file ending is null", "file_ending", None, "file_ending"),
    dataset("file ending is a number", "file_ending", 3, "file_ending"),
    dataset("file ending is empty", "file_ending", "", "file_ending"),
    bad(
        "dataset: file ending of no reader",
        evaluate(),
        ".xyz",
        spoil=spoil.change_json(DATASET, {"file_ending": ".xyz"}),
    ),
]


def as_checkpoint(name: str, change, *says: str):
    return bad(f"checkpoint is {name}", evaluate(), "checkpoint_final.pth", *says, spoil=change)


OF_CHECKPOINT = [
    as_checkpoint("missing", spoil.remove(CHECKPOINT), "-chk"),
    as_checkpoint("a folder", spoil.folder(CHECKPOINT)),
    as_checkpoint("a circle", spoil.circle(CHECKPOINT)),
    as_checkpoint("empty", spoil.write(CHECKPOINT, b"")),
    as_checkpoint("cut in half", spoil.cut(CHECKPOINT)),
    as_checkpoint("cut by a byte", spoil.cut(CHECKPOINT, 0.99999)),
    as_checkpoint("text", spoil.write(CHECKPOINT, "weights")),
    as_checkpoint("HTML", spoil.write(CHECKPOINT, "<html>404</html>")),
    as_checkpoint("zeros", spoil.write(CHECKPOINT, bytes(5000))),
    as_checkpoint("a pickle that ends", spoil.write(CHECKPOINT, b"\x80\x02}q")),
    as_checkpoint("an empty zip", spoil.write(CHECKPOINT, b"PK\x05\x06" + bytes(18))),
    as_checkpoint("a tensor", spoil.save_torch(CHECKPOINT, torch.zeros(2))),
    as_checkpoint("a list", spoil.save_torch(CHECKPOINT, [1])),
    as_checkpoint("weights alone", spoil.save_torch(CHECKPOINT, {"a": torch.ones(1)}), "missing"),
    checkpoint("init_args are None", "init_args", None, "init_args"),
    checkpoint("init_args are a list", "init_args", [1], "init_args"),
    *(
        bad(
            f"checkpoint: {name}",
            evaluate(),
            "checkpoint",
            "configuration",
            spoil=spoil.change_checkpoint(CHECKPOINT, {keys: value}),
        )
        for name, keys, value in [
            ("init_args are empty", "init_args", {}),
            ("configuration None", "init_args.configuration", None),
            ("configuration a list", "init_args.configuration", ["2d"]),
        ]
    ),
    bad(
        "checkpoint: another configuration",
        evaluate(),
        "3d_fullres",
        "plans.json",
        spoil=spoil.change_checkpoint(CHECKPOINT, {"init_args.configuration": "3d_fullres"}),
    ),
    checkpoint("trainer is None", "trainer_name", None, "trainer_name"),
    checkpoint("trainer is a number", "trainer_name", 3, "trainer_name"),
    bad(
        "checkpoint: trainer is unknown",
        evaluate(),
        "nnUNetTrainerNo",
        spoil=spoil.change_checkpoint(CHECKPOINT, {"trainer_name": "nnUNetTrainerNo"}),
    ),
    checkpoint("trainer is empty", "trainer_name", "", "trainer"),
    checkpoint("trainer is a path", "trainer_name", "../../x", "../../x"),
    checkpoint("weights are None", "network_weights", None, "network_weights"),
    checkpoint("weights are a list", "network_weights", [1], "network_weights"),
    checkpoint("no weights", "network_weights", {}, "weights"),
    checkpoint("weights are numbers", "network_weights", {"a": 1}, "weights"),
    checkpoint(
        "weights of another shape",
        "network_weights",
        lambda w: {k: torch.zeros(1) for k in w},
    ),
    checkpoint(
        "weights hold NaN",
        "network_weights",
        lambda w: {k: v * float("nan") for k, v in w.items()},
        "NaN",
    ),
    checkpoint(
        "weights hold infinity",
        "network_weights",
        lambda w: {k: v / 0 if v.is_floating_point() else v for k, v in w.items()},
        "inf",
    ),
    checkpoint(
        "mirroring of an axis that is not there",
        "inference_allowed_mirroring_axes",
        (0, 5),
        "inference_allowed_mirroring_axes",
        "5",
    ),
    checkpoint(
        "mirroring axes as text",
        "inference_allowed_mirroring_axes",
        "xy",
        "inference_allowed_mirroring_axes",
    ),
    checkpoint(
        "mirroring axes are a number",
        "inference_allowed_mirroring_axes",
        1,
        "inference_allowed_mirroring_axes",
    ),
    checkpoint("objects beside tensors", "logging", lambda _: print, "--trust-checkpoint"),
]

OF_FOLDS = [
    bad(
        "one of two folds cannot be read",
        evaluate(),
        "fold_1",
        spoil=spoil.both(
            spoil.copy(f"{MODEL}/fold_0", f"{MODEL}/fold_1"),
            spoil.cut(f"{MODEL}/fold_1/checkpoint_final.pth"),
        ),
    ),
    bad(
        "two folds of two trainers' configurations",
        evaluate(),
        "fold_1",
        "3d_fullres",
        spoil=spoil.both(
            spoil.copy(f"{MODEL}/fold_0", f"{MODEL}/fold_1"),
            spoil.change_checkpoint(
                f"{MODEL}/fold_1/checkpoint_final.pth", {"init_args.configuration": "3d_fullres"}
            ),
        ),
    ),
]

FILES = [*as_file(PLANS), *as_file(DATASET)]
TABLE = [*FILES, *OF_PLANS, *OF_DATASET, *OF_CHECKPOINT, *OF_FOLDS]


@pytest.mark.parametrize("row", rows(TABLE))
def test_is_refused_in_one_line(row, refuses):
    refuses(main, row, "evaluation")
