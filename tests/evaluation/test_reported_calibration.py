"""Calibration in what evaluations, comparisons and cards write; of earlier ones there is none."""

import csv
import json
import shutil
from collections import Counter

import pytest
import torch

from evaluation import compare, evaluate_network
from evaluation.metrics import CALIBRATION
from evaluation.model.folder import SegmentationModel
from evaluation.report.cases_table import COLUMNS, read_cases, write_cases
from evaluation.report.markdown import write_report
from evaluation.report.records import summarise
from evaluation.report_page import write_report_page
from evaluation.rows import MEAN_LABEL
from evaluation.score import score_predictions
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.cards.outs import make, make_out, with_calibration
from tests.evaluation.tiny import run


def predicted(folder, images, out):
    """nnUNetv2_predict --save_probabilities, without its process pools."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), None)
    out.mkdir()
    files = sorted(images.glob("*_0000.nii.gz"))
    names = [str(out / f.name.removesuffix("_0000.nii.gz")) for f in files]
    predictor.predict_from_files_sequential(
        [[str(f)] for f in files], names, save_probabilities=True
    )
    return out


def without(folder, cases=()):
    """An OUT as earlier versions left it: no columns, nothing in the parts of `cases` (or all)."""
    rows = [*csv.DictReader((folder / "cases.csv").open(newline=""))]
    kept = [c for c in COLUMNS if c not in CALIBRATION]
    with (folder / "cases.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, kept, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    summary = json.loads((folder / "summary.json").read_text())
    for record in summary["results"]:
        for key in [k for k in record if k.startswith(CALIBRATION)]:
            del record[key]
    summary["metrics"].pop("calibration", None)
    (folder / "summary.json").write_text(json.dumps(summary))
    for part in folder.glob("parts/*.json"):
        if not cases or part.stem in cases:
            content = json.loads(part.read_text())
            for row in content["rows"]:
                for key in CALIBRATION:
                    del row[key]
            part.write_text(json.dumps(content))
    return folder


@pytest.fixture
def out(finished, tmp_path):
    """A copy of `finished` that may be changed."""
    return shutil.copytree(finished.folder, tmp_path / "new")


@pytest.fixture
def old(finished, tmp_path):
    return without(shutil.copytree(finished.folder, tmp_path / "old"))


def test_clean_it_is_what_score_says_of_nnunets_probabilities(world, finished, tmp_path):
    folder, images, labels = world
    predictions = predicted(folder, images, tmp_path / "predictions")
    score_predictions(
        [predictions],
        labels,
        tmp_path / "scores",
        dataset_json=folder / "dataset.json",
        probabilities=True,
        processes=1,
    )
    with (tmp_path / "scores" / "cases.csv").open(newline="") as file:
        theirs = {(r["case"], r["label"]): r for r in csv.DictReader(file)}
    clean = [r for r in finished.rows() if r["kind"] == "clean"]
    assert len(clean) == 6
    for row in clean:
        said = theirs[row["case"], row["label"]]
        for metric in CALIBRATION:
            assert row[metric] == pytest.approx(float(said[f"{metric}_box"]), abs=1e-5)
            assert 0 < row[metric] < 1
        assert row["dice"] == pytest.approx(float(said["dice"]), abs=1e-8)


def test_a_network_that_is_given_gets_what_the_folder_gets(world, finished, tmp_path):
    folder, images, labels = world
    model = SegmentationModel.from_folder(folder)
    cases = []
    for name, files in model.list_images(images).items():
        case = model.preprocess(files, labels / f"{name}.nii.gz")
        cases.append((name, case.x, case.labels, case.spacing))
    quick = {"attacks": ["noise"], "epsilons": ["4/255"], "corruptions": ["gamma"]}
    found = evaluate_network(
        model.sliding_window(), cases, tmp_path / "out", labels={"ball": 1}, **quick, progress=False
    )
    key = ("case", "attack", "severity", "label")
    theirs = {tuple(r[k] for k in key): r for r in finished.rows() if r["kind"] != "attack"}
    same = [r for r in found.rows() if r["kind"] in ("clean", "shift")]
    assert len(same) == 3 * 6 * 2
    for row in same:
        for metric in CALIBRATION:  # nnU-Net's sums are float16
            wanted = theirs[tuple(row[k] for k in key)][metric]
            assert row[metric] == pytest.approx(wanted, abs=2e-3)


def test_every_run_has_it_and_the_worst_case_has_that_of_its_attack(finished):
    rows = finished.rows()
    assert all(0 < r[m] < 1 for r in rows for m in CALIBRATION)
    key = ("case", "label", "norm", "epsilon_text")
    by_attack = {(r["attack"], *(r[k] for k in key)): r for r in rows}
    worst = [r for r in rows if r["kind"] == "worst"]
    for row in worst:
        source = by_attack[row["source"], *(row[k] for k in key)]
        assert [row[m] for m in CALIBRATION] == [source[m] for m in CALIBRATION]
    clean = {(r["case"], r["label"]): r for r in rows if r["kind"] == "clean"}
    assert any(r["ece"] > clean[r["case"], r["label"]]["ece"] + 0.01 for r in worst)


def test_the_report_has_its_mean_over_cases(finished):
    records = {(r["attack"], r["epsilon_text"]): r for r in finished.summary["results"]}
    rows = [r for r in finished.rows() if r["label"] == MEAN_LABEL]
    text = (finished.folder / "report.md").read_text()
    section = text[text.index("## Calibration") :].split("\n## ")[0]
    shown = [("clean", None), *(("worst_linf", e) for e in ("4/255", "16/255"))]
    for run_ in (*shown, ("all shifts", None)):
        record = records[run_]
        assert record["ece_low"] <= record["ece"] <= record["ece_high"]
        assert f"| {record['ece']:.3g} [{record['ece_low']:.3g}, " in section
        assert f"| {record['brier']:.3g} [" in section
    for attack, epsilon in shown:
        of = [r for r in rows if (r["attack"], r["epsilon_text"]) == (attack, epsilon or "")]
        for metric in CALIBRATION:
            mean = sum(r[metric] for r in of) / len(of)
            assert records[attack, epsilon][metric] == pytest.approx(mean)
    assert "15 bins" in finished.summary["metrics"]["calibration"]
    page = (finished.folder / "report.html").read_text()
    assert "<th>ECE</th>" in page and '"nsd","ece","brier"]' in page


def test_a_folder_of_before_is_read_and_nothing_is_said(old, out, tmp_path):
    assert all(r["ece"] is None and r["brier"] is None for r in read_cases(old / "cases.csv"))
    write_report_page(old)
    page = (old / "report.html").read_text()
    assert '"nsd"]' in page and "<th>ECE</th>" not in page
    write_report(tmp_path / "report.md", json.loads((old / "summary.json").read_text()))
    assert "Calibration" not in (tmp_path / "report.md").read_text()
    records = compare.compare([old, old.parent / "old"], tmp_path / "c", names=["a", "b"])
    assert not any("ece" in r for r in records)
    assert "ECE" not in (tmp_path / "c" / "compare.md").read_text()
    assert "ece" not in (tmp_path / "c" / "compare.csv").read_text()


def test_beside_one_of_before_a_comparison_shows_what_there_is(old, out, tmp_path):
    compare.compare([old, out], tmp_path / "c", names=["before", "now"])
    text = (tmp_path / "c" / "compare.md").read_text()
    assert "Of before an earlier version evaluated some, which did not measure it." in text
    section = text[text.index("## Calibration") :]
    results = json.loads((tmp_path / "c" / "compare.json").read_text())["results"]
    now = {(r["kind"], r["epsilon_text"]): r for r in results if r["model"] == "now"}
    assert not any("ece" in r for r in results if r["model"] == "before")
    for kind, epsilon, title in (
        ("clean", "", "clean"),
        ("worst", "4/255", "worst_linf 4/255"),
        ("worst", "16/255", "worst_linf 16/255"),
        ("shifts_mean", "", "all corruptions"),
    ):
        record = now[kind, epsilon]
        line = next(x for x in section.splitlines() if x.startswith(f"| {title} |"))
        cells = [c.strip() for c in line.split("|")[2:-1]]
        assert len(cells) == 4 and cells[0] == cells[2] == ""
        assert cells[1].startswith(f"{record['ece']:.3g} [")
        assert cells[3].startswith(f"{record['brier']:.3g} [")
    header = (tmp_path / "c" / "compare.csv").read_text().splitlines()[0]
    assert "ece,ece_low,ece_high,brier" in header
    assert "ECE" in section and '"ece"' in (tmp_path / "c" / "report.html").read_text()


@pytest.mark.parametrize("metric", CALIBRATION)
def test_a_figure_that_is_none_is_refused(metric, out):
    rows = read_cases(out / "cases.csv")
    rows[0][metric] = 7.0
    write_cases(out / "cases.csv", rows)
    with pytest.raises(UserError, match=rf"{metric} must be in \[0, 1\], got 7"):
        compare.compare([out, out], out / "c")


def test_a_finished_folder_of_before_is_reported_anew(world, old):
    done = run(world, old)
    assert done.finished and not any("ece" in r for r in done.summary["results"])
    assert not any("calibration" in n for n in done.summary["notes"])
    assert "Calibration" not in (old / "report.md").read_text()


def test_one_that_was_begun_before_goes_on_and_its_mean_is_of_all_cases_or_none(world, out):
    without(out, cases=("case0",))
    (out / "parts" / "case1.json").unlink()
    done = run(world, out)
    found = Counter((r["case"], r["ece"] is None) for r in done.rows())
    assert set(found) == {("case0", True), ("case1", False), ("case2", False)}
    assert not any("ece" in r for r in done.summary["results"])
    assert any("1 of 3 cases were evaluated by an earlier" in n for n in done.summary["notes"])
    assert "## Calibration" not in (out / "report.md").read_text()


def test_a_card_has_what_is_best_known(tmp_path):
    first, rows = with_calibration(make_out(tmp_path / "a"))
    harder, lower = with_calibration(make_out(tmp_path / "b", lower=0.1))
    card = make(tmp_path / "card", first, harder)
    found = card["calibration"]
    clean = summarise(rows, seed=0)[0]
    assert found["clean"]["ece"] == pytest.approx(clean["ece"])
    best = {
        (r["norm"], r["epsilon_text"]): r for r in summarise(lower, seed=0) if r["kind"] == "worst"
    }
    assert len(found["worst"]) == len(card["worst"]) > 2
    for entry in found["worst"]:
        record = best[entry["norm"], entry["epsilon_text"]]
        for key in ("ece", "ece_low", "brier", "brier_high"):
            assert entry[key] == pytest.approx(record[key], rel=1e-6)
    assert found["corruptions"]["ece"] > found["clean"]["ece"]
    text = (tmp_path / "card" / "robustness_card.md").read_text()
    section = text[text.index("## Calibration") :]
    assert f"| clean | {found['clean']['ece']:.3g} [" in section
    assert "| mean over corruptions |" in section


def test_a_card_of_before_has_none(tmp_path):
    card = make(tmp_path / "card", make_out(tmp_path / "a"))
    assert card["calibration"] is None
    assert "Calibration" not in (tmp_path / "card" / "robustness_card.md").read_text()
