"""The data of a benchmark: their resolution, and what of them is held out."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from evaluation.inputs import choose
from nnunetv2_lngswr.experiments.robustness import (
    PRESETS,
    benchmark_robustness,
    evaluation_options,
)
from nnunetv2_lngswr.experiments.robustness.planning import (
    check_evaluation,
    check_groups,
    low_resolution_spacing,
)
from nnunetv2_lngswr.utils.errors import UserError
from tests.experiments.robustness.settings import DATASET, TINY, make_benchmark


@pytest.mark.parametrize(
    ("spacing", "shape", "dimensions", "side", "expected"),
    [
        ((999, 1, 1), (1, 360, 500), 2, 120, (999, 3, 3)),  # a picture
        ((999, 0.5, 0.5), (1, 200, 100), 2, 100, (999, 0.5, 0.5)),  # nothing is made finer
        ((5, 1, 1), (20, 400, 300), 2, 100, (5, 3, 3)),  # the coarse axis is left alone
        ((1, 1, 1), (51, 51, 60), 3, 34, (1.5, 1.5, 1.5)),
        ((4, 1, 1), (20, 160, 160), 3, 40, (4, 2, 2)),  # 80 mm along the shortest
    ],
)
def test_low_resolution_keeps_so_many_voxels_of_the_shortest_axis(
    spacing, shape, dimensions, side, expected
):
    fingerprint = {"spacings": [spacing] * 3, "shapes_after_crop": [shape] * 3}
    assert low_resolution_spacing(fingerprint, dimensions, side) == pytest.approx(expected)


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


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("preset", PRESETS)
def test_what_presets_ask_of_the_evaluation_is_taken(raw, tmp_path, preset, configuration):
    its = make_benchmark(
        tmp_path / "out", raw=raw, configuration=configuration, preset=PRESETS[preset]
    )
    check_evaluation(its)
    other = evaluation_options(its.preset.evaluation, ["transfer"], None)
    with pytest.raises(UserError, match="transfer needs another model folder: --surrogate"):
        check_evaluation(
            dataclasses.replace(its, preset=dataclasses.replace(its.preset, evaluation=other))
        )


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
