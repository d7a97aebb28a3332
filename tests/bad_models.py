"""Kinds of plans, dataset.json and checkpoints that are bad, each with what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

REMOVED = object()
"""The value of a key that shall be missing."""
DESCRIPTION = ("plans.json", "dataset.json")
CHECKPOINT = "fold_0/checkpoint_final.pth"


def damaged(good: Path, root: Path, damage: Callable[[dict, dict, dict], None]) -> Path:
    """A copy of the model folder `good` in `root`, of which `damage` has changed (plans, dataset,
    checkpoint). The plans and the dataset inside the checkpoint are those of the files."""
    plans, dataset = (json.loads((good / name).read_text()) for name in DESCRIPTION)
    checkpoint = torch.load(good / CHECKPOINT, weights_only=False)
    checkpoint["init_args"].update(plans=plans, dataset_json=dataset)
    damage(plans, dataset, checkpoint)
    folder = root / good.name
    (folder / CHECKPOINT).parent.mkdir(parents=True)
    for name, content in zip(DESCRIPTION, (plans, dataset)):
        (folder / name).write_text(json.dumps(content))
    torch.save(checkpoint, folder / CHECKPOINT)
    return folder


def put(table: Any, path: str, value: Any) -> None:
    """Set, or remove, what 'a/b/c' leads to."""
    *way, last = path.split("/")
    for key in way:
        table = table[key]
    if value is REMOVED:
        del table[last]
    else:
        table[last] = value


ARCHITECTURE = "configurations/2d/architecture"
ARGUMENTS = f"{ARCHITECTURE}/arch_kwargs"
# (where in the plans, what stands there, what is said)
PLANS = {
    "no configurations": ("configurations", {}, '"configurations" must hold'),
    "configurations is a list": ("configurations", ["2d"], '"configurations" must hold'),
    "configuration is text": ("configurations/2d", "2d", "must be a table"),
    "configuration is null": ("configurations/2d", None, "must be a table"),
    "another configuration": (
        "configurations",
        {"3d_fullres": {}},
        "has no configuration 2d, which the checkpoint names",
    ),
    "inherits from nobody": (
        "configurations/2d/inherits_from",
        "3d",
        "does not exist in",
    ),
    "inherits from itself": ("configurations/2d/inherits_from", "2d", "Circular dependency"),
    "inherits from a number": ("configurations/2d/inherits_from", [1], "cannot be read: TypeError"),
    "no reader": ("image_reader_writer", REMOVED, '"image_reader_writer" is missing'),
    "reader is a number": ("image_reader_writer", 3, '"image_reader_writer" must be the name'),
    "unknown reader": ("image_reader_writer", "MyIO", "\"image_reader_writer\" is 'MyIO', which"),
    "label manager is null": ("label_manager", None, '"label_manager" must be the name'),
    "unknown label manager": ("label_manager", "Mine", "\"label_manager\" is 'Mine', which"),
    "no transpose": ("transpose_forward", REMOVED, '"transpose_forward" is missing'),
    "transpose of other axes": ("transpose_forward", [0, 1, 3], "must be the axes 0, 1, 2"),
    "transpose of two axes": ("transpose_backward", [1, 0], "must be the axes 0, 1, 2"),
    "plans name is null": ("plans_name", None, '"plans_name" must be a name'),
    "dataset climbs out": ("dataset_name", "../../etc", '"dataset_name" must be a name without'),
    "dataset is absolute": ("dataset_name", "/etc", '"dataset_name" must be a name without'),
    "dataset is the parent": ("dataset_name", "..", '"dataset_name" must be a name'),
    "plans name climbs out": ("plans_name", "..\\x", '"plans_name" must be a name without'),
    "identifier climbs out": (
        "configurations/2d/data_identifier",
        "../x",
        '"data_identifier" must be a name without',
    ),
    "previous stage climbs out": (
        "configurations/2d/previous_stage",
        "../x",
        '"previous_stage" must be a name without',
    ),
    "no architecture": (ARCHITECTURE, REMOVED, "cannot be read: KeyError: 'UNet_class_name'"),
    "architecture is text": (ARCHITECTURE, "unet", '"architecture" must describe the network'),
    "no network class": (f"{ARCHITECTURE}/network_class_name", REMOVED, '"network_class_name" is'),
    "network class is null": (
        f"{ARCHITECTURE}/network_class_name",
        None,
        "must be the dotted name",
    ),
    "network class is unknown": (
        f"{ARCHITECTURE}/network_class_name",
        "dynamic_network_architectures.architectures.unet.MyUNet",
        "MyUNet', which is none of nnU-Net's",
    ),
    "arguments are a list": (ARGUMENTS, [1], '"arch_kwargs" must be'),
    "argument that is none": (f"{ARGUMENTS}/colour", 1, "cannot build the network"),
    "argument of another type": (f"{ARGUMENTS}/n_stages", None, "cannot build the network"),
    "argument is missing": (f"{ARGUMENTS}/strides", REMOVED, "cannot build the network"),
    "layers without values": (
        f"{ARGUMENTS}/norm_op_kwargs",
        {"affine": True, "device": "meta"},
        "weights hold NaN or infinite values, in",
    ),
    "layers of a negative size": (f"{ARGUMENTS}/features_per_stage", [-4, 8], "cannot build the"),
    "layer is a list": (f"{ARGUMENTS}/conv_op", [], '"arch_kwargs: conv_op" is \\[\\], which'),
    "unknown layer": (f"{ARGUMENTS}/conv_op", "torch.nn.Conv9d", "conv_op\" is 'torch.nn.Conv9d'"),
    "imports an absent key": (f"{ARCHITECTURE}/_kw_requires_import", ["x"], "a list of keys of"),
    "imports are text": (f"{ARCHITECTURE}/_kw_requires_import", "conv_op", "a list of keys of"),
    "imports are missing": (f"{ARCHITECTURE}/_kw_requires_import", REMOVED, "is missing"),
    "no patch": ("configurations/2d/patch_size", REMOVED, '"patch_size" is missing'),
    "patch of 7 axes": ("configurations/2d/patch_size", [16] * 7, '"patch_size" must be two or'),
    "patch of zero": ("configurations/2d/patch_size", [16, 0], '"patch_size" must be two or three'),
    "patch of fractions": (
        "configurations/2d/patch_size",
        [16.5, 16],
        "must be two or three",
    ),
    "patch is a number": ("configurations/2d/patch_size", 16, '"patch_size" must be two or three'),
    "no spacing": ("configurations/2d/spacing", REMOVED, '"spacing" is missing'),
    "spacing of another length": ("configurations/2d/spacing", [1, 1, 1], "2 numbers > 0, one per"),
    "spacing of zero": ("configurations/2d/spacing", [1, 0], "2 numbers > 0, one per axis"),
    "spacing of NaN": ("configurations/2d/spacing", [1, float("nan")], "2 numbers > 0, one per"),
    "no normalisation": ("configurations/2d/normalization_schemes", REMOVED, "is missing"),
    "normalisations are few": (
        "configurations/2d/normalization_schemes",
        [],
        "one str per channel",
    ),
    "unknown normalisation": (
        "configurations/2d/normalization_schemes",
        ["MyNormalization"],
        "\"normalization_schemes\" is 'MyNormalization', which",
    ),
    "abstract normalisation": (
        "configurations/2d/normalization_schemes",
        ["ImageNormalization"],
        "\"normalization_schemes\" is 'ImageNormalization', which",
    ),
    "mask is a number": ("configurations/2d/use_mask_for_norm", [1], "one bool per channel"),
    "no intensities": ("foreground_intensity_properties_per_channel", {}, "must hold channels 0"),
    "unknown preprocessor": (
        "configurations/2d/preprocessor_name",
        "Mine",
        "'Mine', which is",
    ),
    "preprocessor is null": ("configurations/2d/preprocessor_name", None, "name of a preprocessor"),
    "unknown resampling": ("configurations/2d/resampling_fn_seg", "mine", "'mine', which is none"),
    "resampling of another kind": (
        "configurations/2d/resampling_fn_data",
        "np",
        "\"resampling_fn_data\" is 'np', which is none",
    ),
    "no resampling arguments": (
        "configurations/2d/resampling_fn_data_kwargs",
        REMOVED,
        '"resampling_fn_data_kwargs" is missing',
    ),
    "resampling argument that is none": (
        "configurations/2d/resampling_fn_data_kwargs",
        {"colour": 1},
        "does not take its arguments",
    ),
    "resampling of order x": (
        "configurations/2d/resampling_fn_data_kwargs/order",
        "x",
        '"order" of "resampling_fn_data_kwargs" must be 0 to 5',
    ),
}
BACKGROUND = {"background": 0}
# (key of dataset.json, what stands there, what is said)
DATASETS = {
    "no channels": ("channel_names", REMOVED, '"channel_names" must name each channel'),
    "channels are empty": ("channel_names", {}, '"channel_names" must name each channel'),
    "channels are text": ("channel_names", "CT", '"channel_names" must name each channel'),
    "labels are a list": ("labels", ["background", "ball"], '"labels" must be like'),
    "labels are null": ("labels", None, '"labels" must be like'),
    "no background": ("labels", {"ball": 1}, '"labels" must have "background": 0'),
    "background is 1": ("labels", {"background": 1, "ball": 0}, '"labels" must have "background"'),
    "background is a region": ("labels", {"background": [0], "ball": 1}, "must have .background"),
    "background alone": ("labels", BACKGROUND, "must name something beside the background"),
    "label is a word": ("labels", {**BACKGROUND, "ball": "one"}, "label .ball. must be a whole"),
    "label is a fraction": ("labels", {**BACKGROUND, "ball": 1.5}, "label .ball. must be a whole"),
    "label is negative": ("labels", {**BACKGROUND, "ball": -1}, "label .ball. must be a whole"),
    "label is null": ("labels", {**BACKGROUND, "ball": None}, "label .ball. must be a whole"),
    "label without a name": ("labels", {**BACKGROUND, "": 1}, 'a name in "labels" is empty'),
    "label of blanks": ("labels", {**BACKGROUND, "  ": 1}, 'a name in "labels" is empty'),
    "second background": ("labels", {**BACKGROUND, "Background": 1}, "beside .background."),
    "region of nothing": ("labels", {**BACKGROUND, "ball": []}, "must name something"),
    "regions alike": (
        "labels",
        {**BACKGROUND, "ball": [1, 2], "whole": [2, 1]},
        "labels .ball. and .whole. are both",
    ),
    "region without an order": ("labels", {**BACKGROUND, "ball": [1, 2]}, "regions_class_order"),
    "ignore in between": (
        "labels",
        {**BACKGROUND, "ignore": 1, "ball": 2},
        "nnU-Net does not take these labels",
    ),
    "ending without a dot": ("file_ending", "nii", '"file_ending" must be one such as'),
    "ending is null": ("file_ending", None, '"file_ending" must be one such as'),
    "ending climbs out": ("file_ending", "/../../x.nii.gz", '"file_ending" must be one such as'),
}
NAN = torch.full((2, 4, 1, 1), float("nan"))
# (where in the checkpoint, what stands there, what is said)
CHECKPOINTS = {
    "init_args is null": ("init_args", None, "init_args must be a dict, got NoneType"),
    "init_args is a list": ("init_args", [], "init_args must be a dict, got list"),
    "no configuration": ("init_args/configuration", REMOVED, "configuration"),
    "configuration is null": ("init_args/configuration", None, "has no configuration None"),
    "configuration is a list": ("init_args/configuration", ["2d"], "has no configuration"),
    "configuration climbs out": ("init_args/configuration", "../2d", "has no configuration ../2d"),
    "trainer is null": ("trainer_name", None, "trainer_name must be a str, got NoneType"),
    "trainer is a number": ("trainer_name", 3, "trainer_name must be a str, got int"),
    "weights are null": ("network_weights", None, "network_weights must be a dict, got NoneType"),
    "weights are a list": ("network_weights", [1], "network_weights must be a dict, got list"),
    "weights are empty": ("network_weights", {}, "must hold tensors by name, found nothing"),
    "weights are text": ("network_weights", {"a": "b"}, "found no tensor for a"),
    "weights by number": ("network_weights", {1: torch.ones(1)}, "found no tensor for 1"),
    "weights of another network": ("network_weights", {"a": torch.ones(1)}, "fit|architecture"),
    "weights hold NaN": (
        "network_weights/decoder.seg_layers.0.weight",
        NAN,
        "weights hold NaN or infinite values, in decoder.seg_layers.0",
    ),
    "weights hold infinity": (
        "network_weights/decoder.seg_layers.0.weight",
        NAN.nan_to_num(torch.inf),
        "weights hold NaN or infinite values, in decoder.seg_layers.0",
    ),
}
# of no concern to warm-start, which neither builds by the trainer nor mirrors
FOR_PREDICTION = {
    "trainer is a path": ("trainer_name", "../../evil", "the plain name of a class"),
    "trainer is dotted": ("trainer_name", "os.system", "the plain name of a class"),
    "trainer is a module": ("trainer_name", "np", "something else than a trainer"),
    "trainer is a function": ("trainer_name", "join", "something else than a trainer"),
    "mirrors a third axis": ("inference_allowed_mirroring_axes", (0, 2), "patch's axes .0, 1."),
    "mirrors backwards": ("inference_allowed_mirroring_axes", (-1,), "patch's axes .0, 1."),
    "mirrors twice": ("inference_allowed_mirroring_axes", (0, 0), "patch's axes .0, 1."),
    "mirrors a word": ("inference_allowed_mirroring_axes", "ab", "patch's axes .0, 1."),
    "mirrors a number": ("inference_allowed_mirroring_axes", 1, "patch's axes .0, 1."),
    "mirrors a fraction": ("inference_allowed_mirroring_axes", (0.5,), "patch's axes .0, 1."),
}
FITTING = {
    "patch for another network": (
        "configurations/2d/patch_size",
        [16, 16, 16],
        "2 axes|3 axes|3 numbers",
    ),
    "patch that cannot be halved": ("configurations/2d/patch_size", [17, 16], "divisible by"),
}


def kinds() -> dict[str, tuple[Callable[[dict, dict, dict], None], str]]:
    """{kind: (damage, pattern of what both evaluate and warm-start say of it)}."""
    found = {}
    for number, table in enumerate((PLANS, DATASETS, CHECKPOINTS)):
        for name, (path, value, said) in table.items():
            found[name] = (_damage(number, path, value), said)
    return found


def prediction_kinds() -> dict[str, tuple[Callable[[dict, dict, dict], None], str]]:
    """Those that only evaluate refuses."""
    found = {n: (_damage(2, p, v), said) for n, (p, v, said) in FOR_PREDICTION.items()}
    return found | {n: (_damage(0, p, v), said) for n, (p, v, said) in FITTING.items()}


def _damage(number: int, path: str, value: Any) -> Callable[[dict, dict, dict], None]:
    def change(*files: dict) -> None:
        put(files[number], path, value)

    return change
