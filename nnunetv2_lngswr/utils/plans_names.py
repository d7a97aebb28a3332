"""The names in a stranger's plans that may be imported and called.

nnU-Net takes names from plans.json and from the checkpoint, imports what they name and calls it
with the arguments that stand beside them: ``"network_class_name": "torch.hub.load"`` runs a file.
Here a name is held against what may be named before nnU-Net sees it. The network and its layers
must be in a list of dotted names, none of which a stranger's string can extend; reader,
normalisation and the like are looked up where nnU-Net looks, in its own installed folders, and must
be of the kind that belongs there.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import nnunetv2
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunetv2_lngswr.utils.checkpoints import TRUST_ADVICE
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.values import shown

_ARCHITECTURES = "dynamic_network_architectures.architectures"
# residual_unet: where older versions had them, which nnU-Net still finds
NETWORKS = frozenset(
    [
        *(f"{_ARCHITECTURES}.unet.{c}UNet" for c in ("PlainConv", "ResidualEncoder", "Residual")),
        *(f"{_ARCHITECTURES}.residual_unet.{c}UNet" for c in ("ResidualEncoder", "Residual")),
        *(
            f"{_ARCHITECTURES}.primus.Primus{version}{size}"
            for version in ("", "V2", "V3")
            for size in ("", "X", "S", "B", "M", "L")
        ),
    ]
)
"""What "network_class_name" may be."""
_BLOCKS = frozenset(
    f"dynamic_network_architectures.building_blocks.{c}"
    for c in ("residual.BasicBlockD", "residual.BottleneckD", "patch_encode_decode.LayerNormNd")
)
_TORCH_MODULES = (
    *("activation", "batchnorm", "conv", "dropout"),
    *("instancenorm", "linear", "normalization", "pooling"),
)
_SCHEMES = "normalization_schemes"
_RESAMPLING = ("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities")


@cache
def layer_names() -> frozenset[str]:
    """The dotted names of layers that may stand in "arch_kwargs": torch's, and nnU-Net's blocks."""
    names = set(_BLOCKS)
    for place in _TORCH_MODULES:
        module = importlib.import_module(f"torch.nn.modules.{place}")
        for name, found in vars(module).items():
            own = inspect.isclass(found) and found.__module__ == module.__name__
            if own and issubclass(found, nn.Module) and getattr(nn, name, None) is found:
                names |= {f"{module.__name__}.{name}", f"torch.nn.{name}"}
    return frozenset(names)


def refuse_foreign_names(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], where: str
) -> None:
    """Refuse names beyond nnU-Net's and torch's.

    Parameters
    ----------
    plans
        Their content, well-formed (`model_files.check_plans`).
    configuration
        The one that is used, inheritance resolved, well-formed.
    where
        Whose plans, for the text.

    Raises
    ------
    UserError
        Names the key and what it names.
    """
    for key, name, allowed in _named(plans, configuration):
        if not isinstance(name, str) or not allowed(name):
            raise UserError(
                f"{where}: \"{key}\" is {shown(name)}, which is none of nnU-Net's or torch's own "
                f"and would be imported and called; {TRUST_ADVICE}"
            )


def find_trainer(name: object, where: str) -> type[nnUNetTrainer]:
    """The trainer class of this name, from the folders that nnU-Net looks in.

    Raises
    ------
    UserError
        Not a plain name, not found, or something else than a trainer.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(
            f"{where}: trainer_name must be the plain name of a class, got {shown(name)}"
        )
    try:
        return recursive_find_trainer_class_by_name(name)
    except (RuntimeError, ImportError) as error:
        raise UserError(
            f"trainer {name} is not found by nnU-Net (for ours: `lngswr register`): {error}"
        ) from error
    except (AssertionError, TypeError):
        raise UserError(
            f"{where}: trainer_name {name} is something else than a trainer in nnU-Net's folder"
        ) from None


def _named(
    plans: Mapping[str, Any], configuration: Mapping[str, Any]
) -> Iterator[tuple[str, object, Callable[[str], bool]]]:
    """(key, name, whether that name is allowed) of all that nnU-Net would import."""
    network = configuration["architecture"]
    yield "network_class_name", network["network_class_name"], NETWORKS.__contains__
    arguments = network["arch_kwargs"]
    for key, value in arguments.items():
        imported = key in network["_kw_requires_import"] and value is not None
        # some trainers of nnU-Net import what is not listed in _kw_requires_import
        if imported or isinstance(value, str):
            yield f"arch_kwargs: {key}", value, layer_names().__contains__
    for scheme in configuration[_SCHEMES]:
        yield _SCHEMES, scheme, _is_a(ImageNormalization, "preprocessing", "normalization")
    for key in _RESAMPLING:
        yield key, configuration[key], _is_resampling
    preprocessor = configuration["preprocessor_name"]
    yield "preprocessor_name", preprocessor, _is_a(DefaultPreprocessor, "preprocessing")
    yield "image_reader_writer", plans["image_reader_writer"], _is_a(BaseReaderWriter, "imageio")
    manager = plans.get("label_manager", LabelManager.__name__)
    yield "label_manager", manager, _is_a(LabelManager, "utilities", "label_handling")


def _is_a(kind: type, *folders: str) -> Callable[[str], bool]:
    """Whether nnU-Net's lookup finds a class of this kind in its own folder."""

    def check(name: str) -> bool:
        found = _found(name, folders)
        return inspect.isclass(found) and issubclass(found, kind) and not inspect.isabstract(found)

    return check


def _is_resampling(name: str) -> bool:
    place = "nnunetv2.preprocessing.resampling"
    found = _found(name, ("preprocessing", "resampling"))
    return inspect.isfunction(found) and found.__module__.startswith(f"{place}.")


@cache
def _found(name: str, folders: tuple[str, ...]) -> object:
    if not name.isidentifier():
        return None
    root = Path(nnunetv2.__path__[0]).joinpath(*folders)
    return recursive_find_python_class(str(root), name, ".".join(("nnunetv2", *folders)))
