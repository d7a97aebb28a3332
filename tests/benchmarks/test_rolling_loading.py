"""What the arms of benchmarks/rolling_loading.py ask of their loaders."""

import json

import pytest

from benchmarks import rolling_loading
from tests import tiny_dataset


@pytest.mark.parametrize("processes", [0, 1])
def test_arms_take_turns_and_rolling_asks_for_a_share_of_the_samples(
    plans, tmp_path, monkeypatch, processes
):
    out = tmp_path / "figures.json"
    call = ["-d", tiny_dataset.NAME, "-c", "2d", "--batch_size", "4", "--replays", "2"]
    call += ["--processes", str(processes), "--turns", "1", "--steps", "4", "-o", str(out)]
    before = dict(rolling_loading.os.environ)
    rolling_loading.main(call)
    assert dict(rolling_loading.os.environ) == before
    found = json.loads(out.read_text())
    assert found["data"]["batch_size"] == 4
    augmented = {name: arm["augmented"] for name, arm in found["arms"].items()}
    assert augmented == {"vanilla": 4, "AT": 4, "AT free": 2, "AT free, rolling": 2}
    assert found["arms"]["vanilla"]["ratio"] == 1
    assert all(0 < arm["waiting_s"] < arm["s"] for arm in found["arms"].values())
    assert not list((tmp_path / "results").glob("*"))


def test_a_turn_of_half_a_replay_is_refused(capsys):
    with pytest.raises(SystemExit):
        rolling_loading.main(["-d", "D", "-c", "2d", "--replays", "4", "--steps", "10"])
    assert "a multiple of --replays, got 10, 4" in capsys.readouterr().err
