"""What nnU-Net itself writes into plans passes the allow-list; hardly anything else does."""

import ast
import inspect
import pydoc
from importlib.util import find_spec
from pathlib import Path

import pytest
from dynamic_network_architectures.building_blocks import helper
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (
    channel_name_to_normalization_mapping,
)
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.plans_names import (
    NETWORKS,
    find_trainer,
    layer_names,
    refuse_foreign_names,
)
from tests.model_folders import architecture

RESAMPLING = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack")


def check(**changes):
    plans = {"image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager"}
    configuration = {
        "architecture": architecture(2),
        "normalization_schemes": ["ZScoreNormalization"],
        "preprocessor_name": "DefaultPreprocessor",
        **{f"resampling_fn_{k}": RESAMPLING[0] for k in ("data", "seg", "probabilities")},
    }
    for key, value in changes.items():
        (plans if key in plans else configuration)[key] = value
    refuse_foreign_names(plans, configuration, "plans")


def full_name(found):
    return f"{found.__module__}.{found.__name__}"


@pytest.mark.parametrize("module", ("unet", "primus"))
def test_segmentation_networks_of_the_package_pass(module):
    # read, not imported: primus needs a torchvision that fits torch
    spec = find_spec(f"dynamic_network_architectures.architectures.{module}")
    tree = ast.parse(Path(spec.origin).read_text())
    names = [c.name for c in tree.body if isinstance(c, ast.ClassDef)]
    assert names and {f"{spec.name}.{n}" for n in names} <= NETWORKS


@pytest.mark.parametrize("dimension", (1, 2, 3))
def test_layers_that_planners_choose_pass(dimension):
    chosen = [
        helper.convert_dim_to_conv_op(dimension),
        helper.get_matching_instancenorm(dimension=dimension),
        helper.get_matching_batchnorm(dimension=dimension),
        helper.get_matching_dropout(dimension=dimension),
        helper.get_matching_pool_op(dimension=dimension, pool_type="max"),
        *(nn.LeakyReLU, nn.ReLU, nn.GELU, nn.Identity, nn.GroupNorm),
    ]
    assert {full_name(c) for c in chosen} | {"torch.nn.LeakyReLU"} <= layer_names()


def test_every_listed_layer_is_a_layer():
    for name in layer_names():
        found = pydoc.locate(name)
        assert inspect.isclass(found) and issubclass(found, nn.Module) and found is not nn.Module


def test_what_nnunet_finds_in_its_own_folders_passes():
    for scheme in channel_name_to_normalization_mapping.values():
        check(normalization_schemes=[scheme.__name__])
    for reader in LIST_OF_IO_CLASSES:
        check(image_reader_writer=reader.__name__)
    for function in RESAMPLING:
        check(resampling_fn_data=function)
    check(architecture=architecture(2, "resenc"))


@pytest.mark.parametrize(
    "key, name",
    [
        ("image_reader_writer", "BaseReaderWriter"),  # abstract
        ("image_reader_writer", "sitk"),
        ("image_reader_writer", "ZScoreNormalization"),
        ("image_reader_writer", "__builtins__"),
        ("resampling_fn_seg", "recursive_find_python_class"),
        ("resampling_fn_seg", "join"),
        ("preprocessor_name", "multiprocessing"),
        ("label_manager", "recursive_find_python_class"),
        ("normalization_schemes", ["number"]),
    ],
)
def test_what_stands_there_by_chance_does_not(key, name):
    with pytest.raises(UserError, match=f'"{key}" is'):
        check(**{key: name})


def test_trainers_are_found_by_their_plain_names():
    assert find_trainer("nnUNetTrainer", "here") is nnUNetTrainer
    with pytest.raises(UserError, match="nnUNetTrainerNobody is not found by nnU-Net"):
        find_trainer("nnUNetTrainerNobody", "here")
