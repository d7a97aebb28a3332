"""Which labels are scored: those of a dataset.json, or those found in the files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from evaluation.metrics import Label
from nnunetv2_lngswr.utils.errors import UserError, blamed_on
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.label_names import BACKGROUND, IGNORE
from nnunetv2_lngswr.utils.model_files import check_dataset_json, check_description
from nnunetv2_lngswr.utils.output_folder import input_file


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """The labels or regions that are scored, and what the files may hold."""

    labels: tuple[Label, ...] | None = None
    """As nnU-Net scores them, without background; None: those found."""
    names: Mapping[Label, str] = field(default_factory=dict)
    ignore_label: int | None = None
    known: frozenset[int] | None = None
    """What a prediction may hold; None: anything. A ground truth may hold the ignore label too."""
    manager: LabelManager | None = None
    """nnU-Net's, which knows what its probabilities are of."""
    dataset_json: str | None = None
    """The file, for messages."""
    ending: str | None = None
    """file_ending of dataset.json."""
    reader: str | None = None
    """The reader that dataset.json asks for (overwrite_image_reader_writer)."""

    @property
    def has_regions(self) -> bool:
        return self.manager is not None and self.manager.has_regions

    def name(self, label: Label) -> str:
        """Of dataset.json, else the label itself."""
        return self.names.get(label, str(label))

    def check_known(self, values: Collection[int], file: Path, *, ground_truth: bool) -> None:
        """Refuse values that dataset.json does not name.

        Raises
        ------
        UserError
            Names the file and the values.
        """
        if self.known is None:
            return
        ignored = {self.ignore_label} if ground_truth else set()
        unknown = sorted(set(values) - self.known - ignored)
        if unknown:
            raise UserError(
                f"{file}: labels {unknown[:10]} are not in {self.dataset_json}, which has "
                f"{sorted(self.known)}; is it the dataset.json of these labels (-djfile)?"
            )

    def channels(self) -> int | None:
        """Of nnU-Net's probabilities; None where no dataset.json says so."""
        return None if self.manager is None else self.manager.num_segmentation_heads

    def channel_of(self, label: Label) -> int:
        """Where in nnU-Net's probabilities a label or region is."""
        if self.manager is None:
            assert isinstance(label, int)
            return label
        heads = self.manager.foreground_regions if self.has_regions else self.manager.all_labels
        return [_plain(head) for head in heads].index(label)

    def segmentation(self, probabilities: np.ndarray) -> np.ndarray:
        """(channels, *spatial) -> (*spatial), as nnU-Net makes one of the other."""
        if self.manager is None:
            return probabilities.argmax(0)
        return np.asarray(self.manager.convert_probabilities_to_segmentation(probabilities))


def labels_for(
    dataset_json: str | Path | None, plans: str | Path | None, *, ignore_label: int | None
) -> LabelSet:
    """`labels_of`, or without a dataset.json whatever is found but `ignore_label`.

    Raises
    ------
    UserError
        As `labels_of`; options of which one makes the other useless.
    """
    if dataset_json is not None:
        if ignore_label is not None:
            raise UserError("the ignore label is that of dataset.json: give -djfile or -il")
        return labels_of(dataset_json, plans)
    if plans is not None:
        raise UserError("plans.json (-pfile) says nothing without dataset.json (-djfile)")
    return LabelSet(ignore_label=ignore_label)


def labels_of(dataset_json: str | Path, plans: str | Path | None = None) -> LabelSet:
    """The labels of a dataset.json, as nnUNetv2_evaluate_folder takes them.

    Parameters
    ----------
    dataset_json
        The file.
    plans
        plans.json, where it names a label manager of its own.

    Raises
    ------
    UserError
        A file is missing, damaged, or nothing that nnU-Net could work with.
    """
    content = read_json(input_file(dataset_json, "dataset.json", "-djfile"))
    if plans is None:
        if isinstance(content, Mapping):  # no image is read here
            content = {"channel_names": {"0": "any"}, **content}
        check_dataset_json(content, str(dataset_json))
        with blamed_on(f"{dataset_json}: nnU-Net does not take these labels"):
            manager = LabelManager(content["labels"], content.get("regions_class_order"))
    else:
        planned = check_description(
            read_json(input_file(plans, "plans.json", "-pfile")),
            content,
            plans_are=str(plans),
            dataset_json_is=str(dataset_json),
        )
        with blamed_on(f"{plans}: nnU-Net finds no label manager"):
            manager = planned.get_label_manager(content)
    scored = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    labels = tuple(_plain(label) for label in scored)
    return LabelSet(
        labels=labels,
        names=_names(content["labels"], labels),
        ignore_label=manager.ignore_label,
        known=frozenset(int(label) for label in manager.all_labels),
        manager=manager,
        dataset_json=str(dataset_json),
        ending=content["file_ending"],
        reader=content.get("overwrite_image_reader_writer"),
    )


def _plain(label: Any) -> Label:
    """Without NumPy's types, which JSON and messages show otherwise."""
    return tuple(int(v) for v in label) if isinstance(label, (tuple, list)) else int(label)


def _names(of_json: Mapping[str, Any], labels: Collection[Label]) -> dict[Label, str]:
    values = {name: _values(value) for name, value in of_json.items()}
    return {
        label: name
        for label in labels
        for name, value in values.items()
        if value == _values(label) and name not in (BACKGROUND, IGNORE)
    }


def _values(label: Any) -> frozenset[int]:
    several = label if isinstance(label, (tuple, list)) else (label,)
    return frozenset(int(v) for v in several)
