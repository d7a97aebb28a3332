"""ECE and Brier score of `lngswr score`, of whole images and of the box around the object."""

import numpy as np
import pytest

from evaluation.calibration import BINS, MARGIN
from evaluation.scoring import run
from tests.evaluation.scoring.files import rows, score, write_image

SHAPE = (2, 60, 50)
OBJECTS = {"a": (slice(None), slice(20, 26), slice(15, 19)), "b": (slice(None), 40, slice(30, 40))}


def by_hand(p, y):
    """(ECE, Brier)."""
    number = np.minimum((p.astype(np.float64) * BINS).astype(int), BINS - 1)
    gaps = [abs(float((p[number == b] - y[number == b]).sum())) for b in range(BINS)]
    return sum(gaps) / p.size, float(((p - y) ** 2).mean())


def test_whole_images_and_boxes_each_have_their_own(tmp_path, monkeypatch):
    for name in ("draw_scores", "draw_reliability"):  # drawn elsewhere
        monkeypatch.setattr(run, name, lambda path, *of: path.write_text("a picture"))
    whole, near = [], []
    for number, (case, where) in enumerate(OBJECTS.items()):
        y = np.zeros(SHAPE, bool)
        y[where] = True
        rng = np.random.default_rng(number)
        p = np.where(y, 0.7, 0.1) + rng.uniform(0, 0.25, SHAPE)  # predicted is what is there
        p = p.astype(np.float32)
        for folder in ("labels", "model"):
            write_image(tmp_path / folder / f"{case}.nii.gz", y)
        np.savez_compressed(tmp_path / "model" / f"{case}.npz", probabilities=np.stack([1 - p, p]))
        low, high = (f(np.argwhere(y), 0) for f in (np.min, np.max))
        box = tuple(slice(max(a - MARGIN, 0), b + MARGIN + 1) for a, b in zip(low, high))
        whole.append((p, y))
        near.append((p[box], y[box]))
        assert p[box].size < p.size / 2
    found = score(tmp_path, "model", probabilities=True)
    (record,) = found["calibration"]
    for suffix, of in (("", whole), ("_box", near)):
        pooled = by_hand(*(np.concatenate([a.ravel() for a in part]) for part in zip(*of)))
        assert (record["ece" + suffix], record["brier" + suffix]) == pytest.approx(pooled, rel=1e-4)
        voxels = sum(b["voxels"] for b in record["bins" + suffix])
        assert voxels == sum(p.size for p, _ in of)
    of_label = [row for row in rows(tmp_path) if row["label"] == "1"]
    assert len(of_label) == len(OBJECTS)
    for row, in_whole, in_box in zip(of_label, whole, near):
        said = [float(row[name]) for name in ("ece", "brier", "ece_box", "brier_box")]
        assert said == pytest.approx([*by_hand(*in_whole), *by_hand(*in_box)], rel=1e-4)
