"""The one place that derives seeds: each stream has the user's seed and what it is for.

The derivations are part of the results: a seed gives what it gave in earlier versions.
"""

from __future__ import annotations

import hashlib


def process_seeds(seed: int, epoch: int, rank: int) -> tuple[int, int, int]:
    """For the global streams of random, numpy and torch in one epoch of a training, 32 bits each.

    Parameters
    ----------
    seed
        The user's.
    epoch
        0, 1, ..., or -1 for what comes before the first.
    rank
        Of the process in a distributed training.
    """
    import numpy as np  # here: the other streams are wanted where only options are read

    state = np.random.SeedSequence([seed, epoch + 1, rank]).generate_state(3)
    return int(state[0]), int(state[1]), int(state[2])


def stream_seed(*keys: object) -> int:
    """63 bits for a generator of its own: other keys give another stream.

    Parameters
    ----------
    keys
        Such as seed, epoch, rank and layer; told apart by their `repr`.
    """
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def run_seed(seed: int, case: str, kind: str, name: str, norm: str) -> int:
    """32 bits for one attack or corruption on one case, whatever the order of cases.

    Budgets and severities share it, so that curves differ by strength and not by luck.
    """
    text = f"{seed}|{case}|{kind}|{name}|{norm}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
