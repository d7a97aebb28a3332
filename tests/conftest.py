import signal

import pytest
import torch

from tests import model_folders


@pytest.fixture(autouse=True, scope="session")
def interrupts():
    # a background job of a script is started with SIGINT ignored, and so would be the processes
    # that tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained():
    """{dimension: (network, x, y)}: U-Nets that segment balls, trained in seconds.

    x is (B, 1, *spatial), y (B, *spatial).
    """
    models = {}
    for dimension in (2, 3):
        x, y = model_folders.batch(dimension)
        models[dimension] = (model_folders.fit(model_folders.make_network(dimension), x, y), x, y)
    return models


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)
