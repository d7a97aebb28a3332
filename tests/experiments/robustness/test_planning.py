"""The data of a benchmark: their resolution, and what evaluations are asked of them."""

import dataclasses
import json
import shutil

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lngswr.experiments.robustness import (
    PRESETS,
    benchmark_robustness,
    evaluation_options,
)
from nnunetv2_lngswr.experiments.robustness.planning import (
    check_evaluation,
    low_resolution_spacing,
    plan_run,
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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gains": [0.3, 0.2, 0.1, 0.05]}, r"gains must have .* per transformed axis \(2 here\)"),
        ({"noise_max_stride": 128}, "noise_max_stride must be at most 64"),
        (
            {"adversarial": {"scheme": "free", "rolling": True, "replays": 5}},
            "replays must divide the batch .* got 5 and a batch of 12",
        ),
    ],
)
def test_settings_that_do_not_fit_the_plans_are_refused_before_anything_is_trained(
    raw, tmp_path, ran, monkeypatch, settings, said
):
    monkeypatch.setitem(PRESETS, "native", dataclasses.replace(TINY, batch_size={}))
    variants = {"odd": {"arm": "LNGSWRAT", **settings}}
    call = {"arms": [], "preset": "native", "variants": variants}
    for _ in range(2):  # once they are known, before anything runs
        with pytest.raises(UserError, match=f"^arm odd: .*{said}"):
            benchmark_robustness(DATASET, "2d", tmp_path / "out", **call)
        commands = [command[0] for command, _ in ran]
        assert commands == ["nnUNetv2_extract_fingerprint", "nnUNetv2_plan_experiment"]


@pytest.mark.parametrize("configuration", ["3d_lowres", "mine"])
def test_a_low_resolution_hands_nothing_on_to_a_stage_that_nobody_trains(tmp_path, configuration):
    preset = dataclasses.replace(PRESETS["gpu"], batch_size={})
    its = make_benchmark(tmp_path, configuration=configuration, preset=preset)
    lowres = {"architecture": {}, "next_stage": "3d_cascade_fullres"}
    planned = {"3d_lowres": lowres, "mine": {"inherits_from": "3d_lowres"}}
    its.preprocessed.mkdir(parents=True)
    its.plans_file(its.base_plans).write_text(json.dumps({"configurations": planned}))
    run = plan_run(its, "LNG", {"arm": "LNG"}, 0, 0)
    plans = json.loads(its.plans_file(run.plans).read_text())
    assert PlansManager(plans).get_configuration(configuration).next_stage_names is None
    of_nnunet = json.loads(its.plans_file(its.base_plans).read_text())
    assert of_nnunet == {"configurations": planned}


def place_elsewhere(dataset):
    content = json.loads((dataset / "dataset.json").read_text())
    ending = content["file_ending"]
    (dataset / "labelsTr").rename(dataset / "labelsX")
    (dataset / "labelsTr").mkdir()
    content["dataset"] = {
        label.name.removesuffix(ending): {
            "images": [f"imagesTr/{label.name.removesuffix(ending)}_0000{ending}"],
            "label": f"labelsX/{label.name}",
        }
        for label in (dataset / "labelsX").glob(f"*{ending}")
    }
    (dataset / "dataset.json").write_text(json.dumps(content))


def preprocess(dataset, copies):
    copies.mkdir()
    for label in labels_of(dataset):
        shutil.copy(label, copies)


def labels_of(dataset):
    return [*dataset.glob("labelsTr/*"), *dataset.glob("labelsX/*")]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_labels_that_were_converted_anew_are_preprocessed_again_or_refused(
    raw, tmp_path, ran, elsewhere
):
    out, call = tmp_path / "out", {"arms": [], "preset": "tiny"}
    benchmark_robustness(DATASET, "2d", out, **call)
    copies = out / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    if elsewhere:  # as nnU-Net's dataset.json may place them
        place_elsewhere(raw / DATASET)
    preprocess(raw / DATASET, copies)
    ran.clear()
    benchmark_robustness(DATASET, "2d", out, **call)
    assert not {"nnUNetv2_preprocess", "nnUNetv2_extract_fingerprint"} & {c[0] for c, _ in ran}
    label = labels_of(raw / DATASET)[0]
    label.write_bytes(label.read_bytes() + b" ")
    with pytest.raises(UserError, match=f"{DATASET} have changed since .* another folder"):
        benchmark_robustness(DATASET, "2d", out, **call)
    (out / "runs.json").unlink()  # nothing was begun
    ran.clear()
    said = []
    benchmark_robustness(DATASET, "2d", out, dry_run=True, say=said.append, **call)
    assert copies.exists() and any("not among these commands" in line for line in said)
    benchmark_robustness(DATASET, "2d", out, **call)
    assert [c[0] for c, _ in ran][:3] == [
        "nnUNetv2_extract_fingerprint",
        "nnUNetv2_plan_experiment",
        "nnUNetv2_preprocess",
    ]
    assert not copies.exists()


def test_a_case_that_was_added_is_preprocessed_too(raw, tmp_path, ran):
    out, call = tmp_path / "out", {"arms": [], "preset": "tiny"}
    benchmark_robustness(DATASET, "2d", out, **call)
    copies = out / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    preprocess(raw / DATASET, copies)
    next(copies.glob("*")).unlink()
    with pytest.raises(UserError, match="have changed"):
        benchmark_robustness(DATASET, "2d", out, **call)
