"""Derived seeds are a part of results: they are what they were."""

from nnunetv2_lngswr.utils.seeds import process_seeds, run_seed, stream_seed


def test_a_training_draws_what_it_drew_in_earlier_versions():
    assert process_seeds(0, -1, 0) == (2968811710, 3677149159, 745650761)
    assert process_seeds(7, 3, 1) == (3210196619, 1274500123, 2393719426)
    assert stream_seed(0, 1, 2, 3) == 3252311618909706447  # (seed, epoch, rank, layer)
    assert stream_seed("attack", 0, 1, 0) == 7265775385446162268


def test_other_keys_give_other_streams():
    keys = [(s, e, r, n) for s in range(2) for e in range(2) for r in range(2) for n in range(3)]
    assert len({stream_seed(*k) for k in keys}) == len(keys)
    assert all(0 <= stream_seed(*k) < 2**63 for k in keys)
    assert run_seed(0, "a", "attack", "pgd", "linf") != run_seed(0, "b", "attack", "pgd", "linf")
