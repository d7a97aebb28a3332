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


def test_seeds_that_are_not_paired_are_refused(tmp_path):
    run = {"fold": 0, "plans": "p", "trainer": "t"}
    runs = [{**run, "arm": GIVEN, "seed": s} for s in (0, 1)]
    runs += [{**run, "arm": FROM_SCRATCH, "seed": 0}]
    (tmp_path / "runs.json").write_text(json.dumps({"runs": runs}))
    settings = {"dataset": "d", "evaluation": [], "configuration": "2d"}
    (tmp_path / "benchmark.json").write_text(json.dumps(settings))
    trained = Trained(tmp_path)
    assert trained.runs(GIVEN) == {0: "t__p__2d", 1: "t__p__2d"}
    with pytest.raises(UserError, match=r"same seeds on fold 0, got seeds \[0, 1\] and \[0\]"):
        measure(Work(tmp_path / "work", trained), [0.1], None)
