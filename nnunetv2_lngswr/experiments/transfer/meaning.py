"""Whether a model's labels and channels mean the same as a data set's, by both dataset.json.

An evaluation reads labels by their numbers and normalises channels by the model's plans, whatever
the data set calls them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (
    get_normalization_scheme,
)

from nnunetv2_lngswr.experiments.transfer.data_sets import DataSet
from nnunetv2_lngswr.experiments.transfer.models import TrainedModel
from nnunetv2_lngswr.utils.errors import UserError

Description = TrainedModel | DataSet


class Meanings:
    """Names of labels, of which some mean the same.

    Parameters
    ----------
    pairs
        Names that do, as they were given.
    described
        All that is evaluated, each name of a pair being one of theirs.

    Raises
    ------
    UserError
        A name that nobody has.
    """

    def __init__(
        self, pairs: Sequence[tuple[str, str]] = (), described: Sequence[Description] = ()
    ) -> None:
        known: dict[str, str] = {}  # as the first one writes them
        for name in (n for d in described for n in d.dataset_json["labels"]):
            known.setdefault(_plain(name), name)
        for name in (n for pair in pairs for n in pair):
            if _plain(name) not in known:
                raise UserError(
                    f"no label is called {name}, there are {', '.join(known.values())} "
                    "(--map-labels)"
                )
        self._same: dict[str, str] = {}
        for one, other in pairs:
            kept, gone = self.of(one), self.of(other)
            self._same |= {name: kept for name, of in self._same.items() if of == gone}
            self._same[gone] = kept

    def of(self, name: str) -> str:
        """The name that stands for all names of this meaning; capitals mean nothing."""
        return self._same.get(_plain(name), _plain(name))

    def of_labels(self, description: Description) -> dict[str, Sequence[int]]:
        """{meaning: its numbers, several of a region}.

        Raises
        ------
        UserError
            Two labels that would mean the same.
        """
        found: dict[str, Sequence[int]] = {}
        for name, value in description.dataset_json["labels"].items():
            if self.of(name) in found:
                raise UserError(
                    f"{description.description}: two labels would mean {self.of(name)}, one of "
                    f"them is {name}: they must stay two (--map-labels)"
                )
            found[self.of(name)] = list(value) if isinstance(value, (list, tuple)) else [value]
        return found


def check_same_meaning(
    model: TrainedModel, data_set: DataSet, meanings: Meanings, *, other_channels: bool
) -> None:
    """Refuse a data set that a model cannot be judged by.

    Parameters
    ----------
    model, data_set
        Which.
    meanings
        Of the names of labels.
    other_channels
        Whether channels may be normalised otherwise.

    Raises
    ------
    UserError
        File endings, labels, the number of channels, or their normalisations differ; the text has
        what stands in both files.
    """
    its, theirs = model.dataset_json, data_set.dataset_json
    if its["file_ending"] != data_set.file_ending:
        raise _differ(
            model,
            data_set,
            f"reads {its['file_ending']}",
            f"is of {data_set.file_ending}",
            "a model reads its own format alone: convert the images and labels of one of them",
        )
    mine, other = meanings.of_labels(model), meanings.of_labels(data_set)
    order = "regions_class_order"
    regions = any(len(numbers) > 1 for numbers in mine.values())
    if mine != other or (regions and its.get(order) != theirs.get(order)):
        raise _differ(
            model,
            data_set,
            f"has the labels {_labels(its)}",
            f"has {_labels(theirs)}",
            "names and numbers must be the same, but for capitals; --map-labels NAME=OTHER takes "
            "two names for one, other numbers need other label files",
        )
    _check_channels(model, data_set, other_channels)


def channels(description: Description) -> list[str]:
    """The names of the channels in their order."""
    content = description.dataset_json
    named = content.get("modality", content.get("channel_names"))  # as nnU-Net prefers
    return [str(n) for n in (named.values() if isinstance(named, Mapping) else named or ())]


def _check_channels(model: TrainedModel, data_set: DataSet, other_channels: bool) -> None:
    mine, other = channels(model), channels(data_set)
    has = f"has the channels {', '.join(mine)}", f"has {', '.join(other)}"
    if len(mine) != len(other):
        raise _differ(model, data_set, *has, "there must be as many, in the same order")
    alike = [get_normalization_scheme(n) for n in mine] == [
        get_normalization_scheme(n) for n in other
    ]
    if not (alike or other_channels):
        raise _differ(
            model,
            data_set,
            *has,
            "nnU-Net normalises these otherwise; if the images are of one kind all the same, "
            "--allow-other-channels takes them",
        )


def _differ(model: TrainedModel, data_set: DataSet, mine: str, other: str, mend: str) -> UserError:
    return UserError(f"{model.description} {mine}, {data_set.description} {other}: {mend}")


def _labels(content: Mapping[str, Any]) -> str:
    """'background 0, nodule 1'."""
    text = ", ".join(f"{name} {value}" for name, value in content["labels"].items())
    order = content.get("regions_class_order")
    return f"{text} (regions_class_order {order})" if order else text


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()
