"""What plans.json and dataset.json must hold before nnU-Net is given them.

nnU-Net trusts its own files: a key that is missing or of another type comes back as a KeyError from
its depths. Here each is looked at first, and the text names the file and the key. Whether the names
in them may be imported, plans_names.py says.
"""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_lngswr.utils.errors import UserError, blamed_on
from nnunetv2_lngswr.utils.label_names import check_labels
from nnunetv2_lngswr.utils.plans_names import refuse_foreign_names
from nnunetv2_lngswr.utils.values import is_number, shown

MOST_PATCH_VOXELS = 2**28
"""16384 x 16384: one number per voxel, as the sliding window weighs with, takes 2 GiB."""
_RESAMPLING = ("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities")
_LIST = (list, tuple)  # from JSON, or from a checkpoint


def check_description(
    plans: dict[str, Any], dataset_json: dict[str, Any], *, plans_are: str, dataset_json_is: str
) -> PlansManager:
    """Plans and dataset.json of one model, checked, as nnU-Net's PlansManager.

    Parameters
    ----------
    plans, dataset_json
        Contents.
    plans_are, dataset_json_is
        Whose they are, for the text.

    Raises
    ------
    UserError
        As `check_plans`, `check_dataset_json`; labels that nnU-Net refuses.
    """
    check_plans(plans, plans_are)
    check_dataset_json(dataset_json, dataset_json_is)
    manager = PlansManager(plans)
    with blamed_on(f"{dataset_json_is}: nnU-Net does not take these labels"):
        LabelManager(dataset_json["labels"], dataset_json.get("regions_class_order"))
    return manager


def check_dataset_json(content: object, where: str) -> None:
    """Refuse a dataset.json that nnU-Net could not work with.

    Parameters
    ----------
    content
        Of the file.
    where
        Whose it is, for the text.

    Raises
    ------
    UserError
        Names the key, what was found and what it must be.
    """
    dataset = _mapping(content, where)
    channels = dataset.get("modality", dataset.get("channel_names"))  # as nnU-Net prefers
    if not isinstance(channels, (Mapping, *_LIST)) or not channels:
        raise UserError(
            f'{where}: "channel_names" must name each channel, such as {{"0": "CT"}}, '
            f"got {shown(channels)}"
        )
    ending = dataset.get("file_ending")
    if not isinstance(ending, str) or not re.fullmatch(r"(\.[A-Za-z0-9_-]+)+", ending):
        raise UserError(f'{where}: "file_ending" must be one such as .nii.gz, got {shown(ending)}')
    check_labels(dataset.get("labels"), dataset.get("regions_class_order"), where)


def check_plans(content: object, where: str) -> None:
    """Refuse plans that nnU-Net could not work with, whichever configuration is used.

    Parameters, Raises as `check_dataset_json`.
    """
    plans = _mapping(content, where)
    for key in ("dataset_name", "plans_name"):
        check_plain_name(plans.get(key), f'{where}: "{key}"')
    _check(plans, "image_reader_writer", where, _is_name, "the name of a reader of nnU-Net")
    if "label_manager" in plans:
        _check(plans, "label_manager", where, _is_name, "the name of a label manager")
    for key in ("transpose_forward", "transpose_backward"):
        _check(plans, key, where, _is_permutation, "the axes 0, 1, 2 in some order")
    configurations = plans.get("configurations")
    if not isinstance(configurations, Mapping) or not configurations:
        raise UserError(f'{where}: "configurations" must hold configurations by name')
    for name, configuration in configurations.items():
        check_plain_name(name, f'{where}: a name in "configurations"')
        _mapping(configuration, f'{where}: "{name}"')


def get_configuration(
    plans: PlansManager,
    name: object,
    *,
    dataset_json: Mapping[str, Any],
    where: str,
    trust: bool = False,
) -> ConfigurationManager:
    """A configuration of checked plans, itself checked, inheritance resolved.

    Parameters
    ----------
    plans
        Whose content has passed `check_plans`.
    name
        Of the configuration, as a checkpoint has it.
    dataset_json
        Which has passed `check_dataset_json`.
    where
        Whose plans, for the text.
    trust
        Admit names of classes and functions from anywhere, which runs what they name.

    Raises
    ------
    UserError
        It is not there, or not well-formed, or names what must not be imported.
    """
    if not isinstance(name, str) or name not in plans.available_configurations:
        raise UserError(
            f"{where} has no configuration {name}, which the checkpoint names; it has "
            f"{plans.available_configurations}"
        )
    where = f'{where}: "{name}"'
    manager = _read_configuration(plans, name, where)
    channels = count_channels(dataset_json)
    _check_configuration(manager.configuration, plans.plans, channels, where)
    if not trust:
        refuse_foreign_names(plans.plans, manager.configuration, where)
    with blamed_on(f"{where}: what the plans name is not found, or does not take its arguments"):
        plans.image_reader_writer_class()
        manager.preprocessor_class(verbose=False)
        for key in _RESAMPLING:
            inspect.signature(getattr(manager, key))
    return manager


def _read_configuration(plans: PlansManager, name: str, where: str) -> ConfigurationManager:
    """As nnU-Net reads it, also from plans of before there was an "architecture"."""
    with blamed_on(f"{where} cannot be read"), warnings.catch_warnings():
        # nnU-Net warns that reading older plans may fail; that it has failed is said here
        warnings.simplefilter("ignore", UserWarning)
        try:
            return plans.get_configuration(name)
        except KeyError as error:
            raise UserError(
                f'{where}: "architecture" is missing, and as one of older plans, which had none, '
                f"it cannot be read: KeyError: {error}; take the plans.json of the training"
            ) from None


def count_channels(dataset_json: Mapping[str, Any]) -> int:
    """Of the images, by a checked dataset.json: 'modality' is what 'channel_names' was called."""
    return len(dataset_json["modality" if "modality" in dataset_json else "channel_names"])


def check_plain_name(name: object, where: str) -> None:
    """Refuse a name that is none, or that as part of a path would climb out of its folder.

    Raises
    ------
    UserError
        Says which and where.
    """
    # \\ and : part paths on Windows
    if not isinstance(name, str) or not re.fullmatch(r"[^/\\:\x00-\x1f]+", name):
        raise UserError(f"{where} must be a name without / or \\, got {shown(name)}")
    if not name.strip(". "):
        raise UserError(f"{where} must be a name, got {shown(name)}")


def _check_configuration(
    configuration: Mapping[str, Any], plans: Mapping[str, Any], channels: int, where: str
) -> None:
    axes = _check_geometry(configuration, where)
    _check_network(configuration, axes, where)
    _check(configuration, "preprocessor_name", where, _is_name, "the name of a preprocessor")
    for key in _RESAMPLING:
        _check(configuration, key, where, _is_name, "the name of a resampling function")
        _check(configuration, f"{key}_kwargs", where, _is_arguments, "its arguments by name")
        for order in ("order", "order_z"):
            value = configuration[f"{key}_kwargs"].get(order, 0)
            if not _is_whole(value) or not 0 <= value <= 5:
                raise UserError(
                    f'{where}: "{order}" of "{key}_kwargs" must be 0 to 5, got {shown(value)}'
                )
    for key, kind in (("normalization_schemes", str), ("use_mask_for_norm", bool)):
        _check(
            configuration,
            key,
            where,
            lambda v, kind=kind: (
                isinstance(v, _LIST) and len(v) >= channels and all(isinstance(i, kind) for i in v)
            ),
            f"a list with one {kind.__name__} per channel ({channels})",
        )
    for key in ("data_identifier", "previous_stage"):
        if configuration.get(key) is not None:
            check_plain_name(configuration[key], f'{where}: "{key}"')
    _check_intensities(configuration, plans, channels, where)


def _check_geometry(configuration: Mapping[str, Any], where: str) -> int:
    """The number of axes of the patch, two or three."""
    rule = "two or three whole numbers >= 1"
    _check(configuration, "patch_size", where, _is_patch, rule)
    axes = len(configuration["patch_size"])
    if math.prod(int(n) for n in configuration["patch_size"]) > MOST_PATCH_VOXELS:
        raise UserError(
            f'{where}: "patch_size" must be of at most {MOST_PATCH_VOXELS} voxels, '
            f"got {shown(configuration['patch_size'])}"
        )
    _check(
        configuration,
        "spacing",
        where,
        lambda v: (
            isinstance(v, _LIST) and len(v) == axes and all(is_number(i) and i > 0 for i in v)
        ),
        f"{axes} numbers > 0, one per axis of the patch",
    )
    return axes


def _check_network(configuration: Mapping[str, Any], axes: int, where: str) -> None:
    # nnU-Net's reading of older plans has put "architecture" there by now
    network = configuration.get("architecture")
    if not isinstance(network, Mapping):
        raise UserError(f'{where}: "architecture" must describe the network, got {shown(network)}')
    inside = f'{where}: "architecture"'
    _check(network, "network_class_name", inside, _is_name, "the dotted name of a network")
    _check(network, "arch_kwargs", inside, _is_arguments, "the network's arguments by name")
    arguments = network["arch_kwargs"]
    _check(
        network,
        "_kw_requires_import",
        inside,
        lambda v: isinstance(v, _LIST) and all(isinstance(k, str) and k in arguments for k in v),
        "a list of keys of arch_kwargs",
    )


def _check_intensities(
    configuration: Mapping[str, Any], plans: Mapping[str, Any], channels: int, where: str
) -> None:
    key = "foreground_intensity_properties_per_channel"
    given = plans.get(key, plans.get("foreground_intensity_properties_by_modality"))
    needed = [str(c) for c in range(channels)]
    if not isinstance(given, Mapping) or not all(isinstance(given.get(c), Mapping) for c in needed):
        raise UserError(f'{where}: "{key}" of the plans must hold channels {", ".join(needed)}')
    for c, scheme in zip(needed, configuration["normalization_schemes"]):
        values = ("mean", "std", "percentile_00_5", "percentile_99_5")
        if scheme == "CTNormalization" and not all(is_number(given[c].get(v)) for v in values):
            raise UserError(
                f'{where}: "{key}" of the plans must give channel {c} finite numbers for '
                f"{', '.join(values)}"
            )


def _check(
    table: Mapping[str, Any], key: str, where: str, holds: Callable[[Any], bool], rule: str
) -> None:
    if key not in table:
        raise UserError(f'{where}: "{key}" is missing; it must be {rule}')
    if not holds(table[key]):
        raise UserError(f'{where}: "{key}" must be {rule}, got {shown(table[key])}')


def _mapping(content: object, where: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise UserError(f"{where} must be a table of keys and values, got {shown(content)}")
    return content


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_arguments(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) for k in value)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_patch(value: object) -> bool:
    return (
        isinstance(value, _LIST)
        and len(value) in (2, 3)
        and all(_is_whole(i) and i >= 1 for i in value)
    )


def _is_permutation(value: object) -> bool:
    return isinstance(value, _LIST) and all(map(_is_whole, value)) and sorted(value) == [0, 1, 2]
