"""The splits of a benchmark: what is held out, what groups are asked of, what may not change."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from evaluation.inputs import choose
from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.experiments.robustness import benchmark_robustness, evaluation_options
from nnunetv2_lngswr.experiments.robustness.record import RECORD
from nnunetv2_lngswr.experiments.robustness.splits import check_groups
from nnunetv2_lngswr.experiments.splits import random_splits
from nnunetv2_lngswr.utils.errors import UserError
from tests.experiments.robustness.settings import DATASET, TINY, make_benchmark


def test_the_cases_of_a_held_out_fold_are_neither_trained_on_nor_attacked(raw, tmp_path, ran):
    out = benchmark_robustness(
        DATASET, "2d", tmp_path / "out", arms=[], preset="tiny", hold_out=1, folds=[0]
    )
    given = json.loads((raw / DATASET / "splits_final.json").read_text())
    used = json.loads((out / "nnUNet_preprocessed" / DATASET / "splits_final.json").read_text())
    held_out = set(given[1]["val"])
    assert held_out and used[0]["val"] == given[0]["val"]
    assert sorted(used[0]["train"]) == sorted(set(given[0]["train"]) - held_out) != []
    with pytest.raises(ValueError, match=r"other settings \(hold_out\)"):
        benchmark_robustness(DATASET, "2d", out, arms=[], preset="tiny")
    with pytest.raises(ValueError, match="fold 99 cannot be held out"):
        benchmark_robustness(DATASET, "2d", tmp_path / "out2", arms=[], preset="tiny", hold_out=99)


@pytest.mark.parametrize("begun", [RECORD, f"nnUNet_results/{DATASET}/T__P__2d/fold_0"])
def test_splits_do_not_change_under_trainings(raw, tmp_path, ran, begun, capsys):
    out, given = tmp_path / "out", raw / DATASET / "splits_final.json"
    splits = json.loads(given.read_text())
    call = {"arms": [], "preset": "tiny"}
    benchmark_robustness(DATASET, "2d", out, **call)
    (out / RECORD).unlink()
    used = out / "nnUNet_preprocessed" / DATASET / "splits_final.json"
    # nothing is trained: the splits may change
    given.write_text(json.dumps(splits[::-1]))
    benchmark_robustness(DATASET, "2d", out, **call)
    assert json.loads(used.read_text()) == splits[::-1]
    if begun != RECORD:
        (out / RECORD).unlink()
        (out / begun).mkdir(parents=True)
    given.write_text(json.dumps([splits[0], *splits[1:-1][::-1], splits[-1]]))
    before = len(ran)
    with pytest.raises(UserError, match=rf"{given} differs .* {out} .* in fold 0, .* with -o"):
        benchmark_robustness(DATASET, "2d", out, **call)
    words = ["-d", DATASET, "-c", "2d", "-o", str(out), "--preset", "tiny", "--arms", "vanilla"]
    assert cli.main(["benchmark", "robustness", *words, "--dry-run"]) == 2
    assert "differs from the splits" in capsys.readouterr().err
    assert json.loads(used.read_text()) == splits[::-1] and len(ran) == before
    given.write_text(json.dumps([*splits[::-1], splits[0]]))
    with pytest.raises(UserError, match=f"{len(splits)} folds there"):
        benchmark_robustness(DATASET, "2d", out, **call)
    # put back, it goes on
    given.write_text(json.dumps(splits[::-1]))
    benchmark_robustness(DATASET, "2d", out, **call)


def test_groups_are_asked_of_the_cases_that_are_chosen(raw, tmp_path, monkeypatch):
    cases = [f"c{i}" for i in range(6)]
    splits = [{"train": ["t"], "val": cases}]
    (raw / DATASET / "splits_final.json").write_text(json.dumps(splits))
    chosen = choose(cases, 2, seed=0)
    lines = [f"{case},{'one' if case in chosen else 'other'}" for case in cases]
    (tmp_path / "t.csv").write_text("\n".join(["case,patient", *lines]))
    its = make_benchmark(tmp_path / "out", raw=raw, groups=str(tmp_path / "t.csv"))
    assert "2" in TINY.evaluation  # --max-cases
    with pytest.raises(UserError, match="all 2 cases are of one group, 'one'"):
        check_groups(its, [0])
    all_of_them = evaluation_options(TINY.evaluation, None, 6)
    check_groups(
        dataclasses.replace(its, preset=dataclasses.replace(TINY, evaluation=all_of_them)), [0]
    )


def test_without_splits_random_ones_lie_there_before_trainings_run_side_by_side(
    raw, tmp_path, ran, monkeypatch
):
    """Each would write nnU-Net's own, and might read them half written."""
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    (raw / DATASET / "splits_final.json").unlink()
    out = benchmark_robustness(DATASET, "2d", tmp_path / "out", arms=[], preset="tiny", folds=[0])
    file = out / "nnUNet_preprocessed" / DATASET / "splits_final.json"
    names = {p.name.rsplit("_", 1)[0] for p in (raw / DATASET / "imagesTr").iterdir()}
    assert json.loads(file.read_text()) == random_splits(names)
    file.write_text(json.dumps([random_splits(names)[1], *random_splits(names)[1:]]))
    before = file.read_text()
    benchmark_robustness(DATASET, "2d", out, arms=[], preset="tiny", folds=[0])
    assert file.read_text() == before


def test_without_splits_the_cases_are_those_that_nnunets_trainer_draws(raw, tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    folder = raw / DATASET
    (folder / "splits_final.json").unlink()
    names = sorted({p.name.rsplit("_", 1)[0] for p in (folder / "imagesTr").iterdir()})
    trainer = SimpleNamespace(
        fold=3,
        preprocessed_dataset_folder="",
        preprocessed_dataset_folder_base=str(tmp_path),
        folder_with_segs_from_previous_stage=None,
        dataset_class=lambda *given, **options: SimpleNamespace(identifiers=names),
        print_to_log_file=lambda *words: None,
    )
    trainer.dataset_class.get_identifiers = lambda folder: names
    _, drawn = nnUNetTrainer.do_split(trainer)
    assert 1 < len(drawn) < len(names)
    table = tmp_path / "t.csv"
    its = make_benchmark(tmp_path / "out", raw=raw, groups=str(table))

    def write(cases):
        lines = [f"{case},patient {i}" for i, case in enumerate(cases)]
        table.write_text("\n".join(["case,patient", *lines]))

    write(drawn)  # none of any other case
    check_groups(its, [3])
    write(sorted(set(names) - {drawn[0]}))
    with pytest.raises(UserError, match=f"no row for {drawn[0]}"):
        check_groups(its, [3])
