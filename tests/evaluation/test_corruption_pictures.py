"""corruptions.png: the slice that a case keeps, the case that is shown, and where it is shown."""

import base64
import io
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.corruption_table import CORRUPTIONS, SEVERITIES
from evaluation.example import SIDE_OF_CORRUPTED, CorruptedSlice
from evaluation.protocol import CORRUPTION, EvaluationRun
from evaluation.report import corruption_pictures
from evaluation.report.corruption_pictures import choose_corrupted, draw_corruptions
from evaluation.report_page import write_report_page
from tests.evaluation.tiny import run

NAMES = ("gamma", "motion_blur")


def corrupted(shape=(60, 48), *, names=NAMES, dice=0.5, case="a"):
    """A slice whose grey values rise from picture to picture, with a square predicted."""
    count = 1 + len(names) * len(SEVERITIES)
    predictions = np.zeros((count, *shape), np.uint8)
    predictions[:, 10:30, 10:30] = 2
    runs = [(name, severity) for name in names for severity in SEVERITIES]
    return {
        "images": np.stack([np.full(shape, 20 * i % 256, np.uint8) for i in range(count)]),
        "predictions": predictions,
        "reference": predictions[0],
        "values": [0, 1, 3],
        "names": {"3": "nodule"},
        "case": case,
        "runs": [
            {"corruption": name, "severity": severity, "dice": dice}
            for name, severity in [("", None), *runs]
        ],
    }


def test_a_case_keeps_its_largest_slice_in_the_clean_ones_window():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 4, 300, 120)).astype(np.float32)
    labels = np.zeros((4, 300, 120), np.int16)
    labels[1, 5:9, 5:9], labels[2, 100:190, 20:90], labels[2, :3] = 3, 3, 7
    case = SimpleNamespace(
        x=torch.from_numpy(image),
        labels=torch.from_numpy(labels),
        identifier="a",
        on_grid_of_x=lambda segmentation: segmentation,
    )
    manager = SimpleNamespace(has_ignore_label=True, ignore_label=7)
    model = SimpleNamespace(label_manager=manager)
    kept = CorruptedSlice(model, case, np.where(labels == 3, 3, 0), 0.75)
    assert kept.kept() is None
    predicted = np.zeros_like(labels)
    predicted[2, 120:150] = 5
    step = EvaluationRun(kind=CORRUPTION, name="gamma", severity=2)
    kept.consider(step, torch.from_numpy(image + 0.5), predicted, 0.25)
    found = kept.kept()
    assert [r["dice"] for r in found["runs"]] == [0.75, 0.25]
    assert found["runs"][1] == {"corruption": "gamma", "severity": 2, "dice": 0.25}
    assert max(found["reference"].shape) == SIDE_OF_CORRUPTED and found["values"] == [0, 3, 5]
    # the 90 labelled rows in the middle of 192, of which every second one is kept
    cut = np.s_[49:241:2, ::2]
    assert np.array_equal(found["reference"] == 1, (labels[2] == 3)[cut])
    low, high = np.percentile(image[0, 2][cut], (0.5, 99.5))
    for number, x in enumerate((image, image + 0.5)):
        grey = np.rint(((x[0, 2][cut] - low) * 255 / (high - low)).clip(0, 255))
        assert np.abs(grey - found["images"][number]).max() <= 1
    assert np.array_equal(found["predictions"][1] == 2, (predicted[2] == 5)[cut])
    assert found["images"].dtype == found["predictions"].dtype == np.uint8


def test_the_case_in_the_middle_is_shown_and_undefined_ones_come_last():
    of = [corrupted(dice=dice) for dice in (0.9, float("nan"), 0.1, 0.5, 0.7)]
    assert choose_corrupted(of) == 4
    assert choose_corrupted(of[:1]) == 0
    of[4]["runs"][0]["dice"] = -100.0  # the clean run is no corruption
    assert choose_corrupted(of) == 4


def test_every_picture_is_in_its_place_with_its_outline(tmp_path):
    given = corrupted()
    draw_corruptions(tmp_path / "x.png", given)
    file = Image.open(tmp_path / "x.png")
    place = corruption_pictures._Place((60, 48), rows=2)
    assert file.mode == "P" and file.size == (place.width, place.height)
    drawn = np.asarray(file.convert("RGB")).astype(int)
    times = place.times
    assert times == 3
    colour = [int(corruption_pictures._colour(2)[i : i + 2], 16) for i in (1, 3, 5)]
    for i, step in enumerate(given["runs"]):
        row = NAMES.index(step["corruption"]) if step["corruption"] else None
        top, left = place.of(row, step["severity"])
        cell = drawn[top : top + place.h, left : left + place.w]
        for y, x in ((4, 4), (55, 40), (20, 20)):
            assert np.abs(cell[times * y, times * x] - 20 * i).max() <= 3
        beside = drawn[top + 5, left + place.w + 3]
        assert np.abs(beside - 255).max() <= 3
        if step["corruption"]:  # on the edge of what is predicted
            edge = cell[times * 20, times * 10 - 3 : times * 10 + 3]
            assert np.abs(edge - colour).max(1).min() < 40
            assert np.abs(cell[times * 20, times * 10 - 12] - 20 * i).max() <= 3


def test_texts_stay_within_the_file(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(corruption_pictures, "_save", lambda figure, path: kept.append(figure))
    draw_corruptions(
        tmp_path / "x.png", corrupted((96, 30), names=tuple(CORRUPTIONS), case="p$1_" * 40)
    )
    (figure,) = kept
    (axis,) = figure.axes
    width, height = figure.canvas.get_width_height()
    boxes = [text.get_window_extent() for text in axis.texts]
    boxes.append(axis.get_legend().get_window_extent())
    for box in boxes:
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
    written = "".join(text.get_text() for text in axis.texts).replace("\n", "")
    assert "p$1_" * 40 in written and "0.18: 50.0%" in written
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def test_it_is_beside_the_report_and_in_both(finished):
    rows = [r for r in finished.rows() if r["kind"] == CORRUPTION and r["label"] == "mean"]
    cases = sorted({r["case"] for r in rows})
    means = {c: np.mean([r["dice"] for r in rows if r["case"] == c]) for c in cases}
    middle = sorted(cases, key=lambda c: (means[c], cases.index(c)))[1]
    report = (finished.folder / "report.md").read_text()
    assert "Pictures: curves.png, examples.png, corruptions.png;" in report
    shown = f"What they look like, in case {middle}:\n\n![every corruption at every severity]"
    assert f"{shown}(corruptions.png)" in report
    page = (finished.folder / "report.html").read_text()
    (embedded,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    shown = Image.open(io.BytesIO(base64.b64decode(embedded))).convert("RGB")
    with Image.open(finished.folder / "corruptions.png") as file:
        drawn = file.convert("RGB")
    assert shown.size == drawn.size
    assert np.abs(np.asarray(shown, float) - np.asarray(drawn, float)).mean() < 5


def test_a_case_without_an_attack_has_it_too(world, tmp_path):
    done = run(world, tmp_path / "out", attacks=["noise"], max_cases=1)
    assert (done.folder / "corruptions.png").is_file()
    assert not (done.folder / "examples.png").exists()
    none = run(world, tmp_path / "none", corruptions=[], max_cases=1)
    assert not (none.folder / "corruptions.png").exists()
    assert "corruptions.png" not in (none.folder / "report.md").read_text()


def test_folders_of_earlier_versions_are_reported_without_it(world, finished, tmp_path):
    out = shutil.copytree(finished.folder, tmp_path / "out")
    for part in (out / "parts").glob("*.json"):
        content = json.loads(part.read_text())
        assert content.pop("corrupted")["case"]
        part.write_text(json.dumps(content))
        with np.load(part.with_suffix(".npz")) as file:
            arrays = {k: v for k, v in file.items() if not k.startswith("corrupted_")}
            assert len(arrays) == len(file.files) - 3
        np.savez_compressed(part.with_suffix(".npz"), **arrays)
    assert run(world, out).finished
    assert not (out / "corruptions.png").exists()
    assert "corruptions.png" not in (out / "report.md").read_text()
    page = write_report_page(out).read_text()
    assert "data:image/jpeg" not in page and 'id="corruption-pictures"' not in page
    assert (out / "cases.csv").read_bytes() == (finished.folder / "cases.csv").read_bytes()


@pytest.mark.parametrize("content", [b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(3_000_000)])
def test_what_is_no_picture_is_not_embedded(finished, tmp_path, content):
    out = shutil.copytree(finished.folder, tmp_path / "out")
    (out / "corruptions.png").write_bytes(content)
    assert "data:image/jpeg" not in write_report_page(out).read_text()
