"""Files of one benchmark's parts are one: no training is lost, and none that differs is taken."""

import json

import pytest

from benchmarks.trainings import ELSEWHERE, RUN_KEYS, across_machines, by_seed, joined

BY_CASE = {"clean": {"a": [0.5]}}


@pytest.fixture
def write(tmp_path):
    def write(name, runs, **more):
        record = {
            "arms": {arm: {"arm": arm} for arm, *_ in runs},
            "runs": [
                {"arm": arm, "seed": seed, "dice": dict.fromkeys(RUN_KEYS, dice), **of}
                for arm, seed, dice, of in runs
            ],
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(record | more))
        return path

    return write


def test_every_training_of_every_file_is_there(write):
    one = write("a", [("vanilla", 0, 0.5, {}), ("DA5", 0, 0.6, {})])
    two = write("b", [("vanilla", 0, 0.5, {}), ("DA5", 1, 0.7, {}), ("vanilla", 1, 0.4, {})])
    record = joined([one, two])
    assert {arm: [*by_seed(record, arm)] for arm in record["arms"]} == {
        "vanilla": [0, 1],
        "DA5": [0, 1],
    }
    assert by_seed(record, "DA5")[1]["clean"] == 0.7


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_a_training_in_two_files_the_dice_by_case_are_kept(write, order):
    files = [
        write("a", [("vanilla", 0, 0.5, {})]),
        write("b", [("vanilla", 0, 0.5, {"dice_by_case": BY_CASE})]),
    ]
    (run,) = joined([files[i] for i in order])["runs"]
    assert run["dice_by_case"] == BY_CASE


@pytest.mark.parametrize(
    ("runs", "more", "said"),
    [
        ([("AT", 0, 0.5, {})], {}, "no training of vanilla is in both"),
        ([("vanilla", 1, 0.5, {})], {}, "no training of vanilla is in both"),
        ([("vanilla", 0, 0.4, {})], {}, "vanilla are not the same"),
        ([("vanilla", 0, 0.5, {}), ("DA5", 0, 0.7, {})], {}, "DA5 are not the same"),
        (
            [("vanilla", 0, 0.5, {})],
            {"arms": {"vanilla": {"arm": "vanilla"}, "DA5": {"arm": "DA5", "gains": "prior"}}},
            "other settings of DA5",
        ),
        ([("vanilla", 0, 0.5, {})], {"groups": {"of": {"a": "patient"}}}, "other groups"),
    ],
)
def test_what_is_not_of_one_benchmark_is_refused(write, runs, more, said):
    one = write("a", [("vanilla", 0, 0.5, {}), ("DA5", 0, 0.6, {})])
    with pytest.raises(SystemExit, match=said):
        joined([one, write("b", runs, **more)])


def test_another_machine_adds_its_arms_and_no_seeds_of_those_that_are_there(write):
    here = write("a", [("vanilla", 0, 0.5, {}), ("DA5", 0, 0.6, {})], results=[{"model": "DA5"}])
    there = write(
        "b",
        [("vanilla", 1, 0.4, {}), ("AT", 0, 0.8, {}), ("DA5", 0, 0.1, {})],
        results=[{"model": arm} for arm in ("vanilla", "AT", "DA5")],
    )
    record = across_machines([joined([here]), joined([there])])
    assert {arm: by_seed(record, arm)[0]["clean"] for arm in record["arms"]} == {
        "vanilla": 0.5,
        "DA5": 0.6,
        "AT": 0.8,
    }
    assert [*by_seed(record, "vanilla")] == [0]
    assert [row["model"] for row in record["results"]] == ["DA5", "AT"]
    assert record[ELSEWHERE] == ["AT"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"dataset": "another"}, "differ in dataset"),
        ({"budget": {"num_epochs": 50}}, "differ in budget"),
        ({"groups": {"of": {"a": "patient"}}}, "differ in groups"),
        ({"arms": {"vanilla": {"arm": "vanilla", "gains": "prior"}}}, "differ in vanilla"),
    ],
)
def test_machines_that_did_other_things_are_not_put_together(write, more, said):
    files = [write(name, [("vanilla", 0, 0.5, {})], **of) for name, of in (("a", {}), ("b", more))]
    with pytest.raises(SystemExit, match=said):
        across_machines([joined([file]) for file in files])
