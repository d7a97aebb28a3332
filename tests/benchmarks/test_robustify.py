"""What a share of the budget keeps of the robustness that training from the first step gives."""

import json

import pytest

from benchmarks.robustify import FROM_SCRATCH, GIVEN, Trained, Work, kept, measure
from nnunetv2_lngswr.utils.errors import UserError


def dice(clean, worst):
    return {"clean": clean, "worst_linf 8/255": worst}


def test_kept_is_the_part_of_the_reduction_of_the_drop_of_means():
    found = kept(
        {
            GIVEN: [dice(0.8, 0.3), dice(0.8, 0.5)],  # drops by .4
            FROM_SCRATCH: [dice(0.8, 0.6), dice(0.8, 0.6)],  # by .2
            "none": [dice(0.7, 0.3), dice(0.7, 0.3)],  # by .4, at a lower level
            "half": [dice(0.8, 0.4), dice(0.8, 0.6)],  # by .3
            "more": [dice(0.7, 0.6), dice(0.7, 0.6)],  # by .1
        }
    )
    assert {k: v["worst_linf 8/255"] for k, v in found.items()} == pytest.approx(
        {"none": 0, "half": 0.5, "more": 1.5}
    )


def finished(folder, *, seeds):
    """A benchmark whose vanilla and AT have these seeds."""
    run = {"fold": 0, "plans": "p", "trainer": "t"}
    runs = [{**run, "arm": arm, "seed": s} for arm, of in seeds.items() for s in of]
    (folder / "runs.json").write_text(json.dumps({"runs": runs}))
    settings = {"dataset": "Dataset611_X", "evaluation": [], "configuration": "2d"}
    (folder / "benchmark.json").write_text(json.dumps(settings))
    return Trained(folder)


def test_seeds_that_are_not_paired_are_refused(tmp_path):
    trained = finished(tmp_path, seeds={GIVEN: (0, 1), FROM_SCRATCH: (0,)})
    assert trained.runs(GIVEN) == {0: "t__p__2d", 1: "t__p__2d"}
    with pytest.raises(UserError, match=r"same seeds on fold 0, got seeds \[0, 1\] and \[0\]"):
        measure(Work(tmp_path / "work", trained), [0.1], None)


@pytest.mark.parametrize(("raw", "says"), [("", "not set"), ("RAW", "RAW"), (None, "not set")])
def test_without_the_raw_data_nothing_is_begun(raw, says, tmp_path, monkeypatch):
    (tmp_path / "RAW").mkdir()
    monkeypatch.delenv("nnUNet_raw", raising=False)
    if raw is not None:
        monkeypatch.setenv("nnUNet_raw", raw and str(tmp_path / raw))
    trained = finished(tmp_path, seeds={GIVEN: (0,), FROM_SCRATCH: (0,)})
    work = Work(tmp_path / "work", trained)
    for begin in (
        lambda: measure(work, [0.1], None),
        lambda: work.run("share", ["lngswr", "doctor"]),
    ):
        with pytest.raises(UserError, match=rf"no data set Dataset611_X in nnUNet_raw \(.*{says}"):
            begin()
    assert not work.folder.exists()
