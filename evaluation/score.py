"""Scores of anybody's segmentations, without a model: `lngswr score`.

Dice and IoU as nnUNetv2_evaluate_folder, with HD95, NSD, volumes, lesions and, from nnU-Net's
probabilities, calibration; per case and label, and as means with intervals that respect patients.
Several models stand side by side, with paired differences to the first.

This module only wires: scoring/predictions.py finds the files, label_set.py says what they mean,
score_case.py scores a case, unfinished.py keeps it until all are done, table.py joins them,
summary.py, report.py, page.py and figures.py make what run.py writes; they are imported when they
are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.scoring.options import ScoreOptions
from nnunetv2_lngswr.utils.output_folder import output_folder as checked_output

Folders = str | Path | Sequence[str | Path]
Groups = Mapping[str, str] | Callable[[Sequence[str]], Mapping[str, str]]


def score_predictions(
    predictions: Sequence[Folders],
    labels: str | Path,
    output_folder: str | Path,
    *,
    dataset_json: str | Path | None = None,
    plans: str | Path | None = None,
    groups: Groups | None = None,
    names: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Score segmentations against labels and write what was found to `output_folder`.

    A call that was ended before keeps the cases that it had scored, and the same call goes on.

    Parameters
    ----------
    predictions
        Per model a folder of <case><file ending>, or several that are joined (folds).
    labels
        The folder of the ground truth, likewise.
    output_folder
        Gets report.html, report.md, cases.csv, scores.png, reliability.png and, last, summary.json.
    dataset_json, plans
        As `labels_of`; None: the labels that are found.
    groups
        case -> patient, or what gives it for cases; None: each case is a patient of its own.
    names
        Of the models; by default those of their folders.
    overwrite
        Score anew what an unfinished call with other arguments has left in `output_folder`.
    progress, **options
        Whether to show a progress bar; fields of `ScoreOptions`.

    Returns
    -------
    dict
        The content of summary.json.

    Raises
    ------
    UserError
        What does not fit together, by name, and an unfinished call with other arguments; nothing
        but the cases that are scored is written then.
    """
    chosen, output = ScoreOptions(**options), checked_output(output_folder)
    from evaluation.scoring import label_set, run
    from evaluation.scoring.predictions import find_inputs

    known = label_set.labels_for(dataset_json, plans, ignore_label=chosen.ignore_label)
    inputs = find_inputs(predictions, labels, ending=known.ending, names=names, chill=chosen.chill)
    run.check_output(output, inputs, Path(labels))
    patients = groups(list(inputs.labels)) if callable(groups) else groups
    asked = run.Asked(inputs, Path(labels), known, plans, patients, chosen)
    return run.score_into(output, asked, overwrite=overwrite, progress=progress)
