"""What a comparison says of differences that do not forbid it: notes, in words."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.comparison.folders import ComparedModel
from evaluation.model.kinds import is_given
from evaluation.protocol import CORRUPTION
from nnunetv2_lngswr.utils.names import some_names

# what may differ between models, but must be known
NOTED = (
    "dataset",
    "configuration",
    "plans",
    "tile_step_size",
    "mirror_axes",
    "patch_size",
    "folds",
    "checkpoint",
)
NOTED_OF_FOLDERS = [key for key in NOTED if key not in ("configuration", "plans", "folds")]
"""The same of the folders of one model: its plans and folds differ, its configuration must not."""


def notes_on_folders(parts: Sequence[ComparedModel]) -> list[str]:
    """What may differ between the folders of one model, but must be known."""
    first = parts[0].summary["model"]
    return [
        f"{key} differs between folders that are joined: {parts[0].place} {first.get(key)}, "
        f"{other.place} {other.summary['model'].get(key)}"
        for other in parts[1:]
        for key in NOTED_OF_FOLDERS
        if other.summary["model"].get(key) != first.get(key)
    ]


def notes_on_models(models: Sequence[ComparedModel], lone_attacks: Sequence[str]) -> list[str]:
    """How settings differ between models, and what was left out."""
    notes = []
    for key in NOTED:
        values = [m.summary["model"].get(key) for m in models]
        if any(v != values[0] for v in values):
            said = ", ".join(f"{m.name} {v}" for m, v in zip(models, values))
            notes.append(f"{key} differs: {said}")
    surrogates = [m.summary.get("surrogate") for m in models]
    if all(surrogates) and any(s != surrogates[0] for s in surrogates):
        names = ", ".join(m.name for m in models)
        notes.append(
            f"transfer, and the worst that it is part of, are not of the same surrogate in {names}"
        )
    if lone_attacks:
        notes.append(
            "attacks left out of this comparison, also of worst_linf and worst_l2, since not every "
            f"folder has them: {', '.join(lone_attacks)}"
        )
    lone = lone_corruptions(models)
    if lone:
        notes.append(
            "corruptions left out of this comparison, since not every folder has them: "
            f"{', '.join(lone)}"
        )
    return notes


def notes_on_inputs(models: Sequence[ComparedModel]) -> list[str]:
    """How far it is known that models were given the same images."""
    notes = []
    unknown = [m.name for m in models if set(m.summary["cases"]) - m.inputs.keys()]
    if unknown:
        notes.append(
            f"cases of {', '.join(unknown)} are paired by name and by the sizes of their labels "
            "alone: only the parts in an OUT folder say which image and label a case is of, and "
            "those of a cascade do not where an earlier version made them"
        )
    if len({of_arrays(m) for m in models}) > 1:
        arrays = ", ".join(m.name for m in models if of_arrays(m))
        notes.append(
            f"cases of {arrays} were given as arrays, and are paired with files by name and by the "
            "sizes of their labels alone"
        )
    first = models[0]
    for other in models[1:]:
        differ = sorted(
            case
            for case, sha in first.previous_stages.items()
            if other.previous_stages.get(case, sha) != sha
        )
        if differ:
            notes.append(
                "the previous stage's segmentations, which cascades are given, are other files for "
                f"{first.name} and {other.name} ({some_names(differ)}): the difference is one of "
                "both stages"
            )
    return notes


def lone_corruptions(models: Sequence[ComparedModel]) -> list[str]:
    """Those that some models have and others lack."""
    names = [
        dict.fromkeys(r["attack"] for r in model.rows if r["kind"] == CORRUPTION)
        for model in models
    ]
    everything = dict.fromkeys(name for of in names for name in of)
    return [name for name in everything if not all(name in of for of in names)]


def of_arrays(model: ComparedModel) -> bool:
    """Whether its hashes are of arrays, which no file's equal."""
    return is_given(model.summary["model"])
