"""Free adversarial training: replays of batches."""

from nnunetv2_lngswr.training.free import Replay


def test_replay_gives_each_batch_so_many_times_and_restarts_with_a_new_one():
    replay = Replay(iter([[i] for i in range(9)]), 3)
    got = [next(replay) for _ in range(4)]
    assert [b[0] for b in got] == [0, 0, 0, 1] and got[0] is got[2]
    replay.restart()
    assert [next(replay)[0] for _ in range(2)] == [2, 2]
