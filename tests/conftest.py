import functools
import signal

import pytest
import torch

from tests import model_folders


@pytest.fixture(autouse=True, scope="session")
def interrupts():
    # a background job of a script is started with SIGINT ignored, and so would be the processes
    # that tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # under nohup SIGHUP is ignored, and would be by them; a handler is not handed on
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained():
    """{dimension: (network, x (B, 1, *spatial), y)}: U-Nets that segment balls."""
    models = {}
    for dimension in (2, 3):
        x, y = model_folders.batch(dimension)
        models[dimension] = (model_folders.fit(model_folders.make_network(dimension), x, y), x, y)
    return models


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """tiny_data(dimension): (root, plans) of a tiny nnU-Net data set, made when it is asked for."""
    from tests import tiny_dataset

    @functools.cache
    def made(dimension: int):
        root = tmp_path_factory.mktemp(f"tiny{dimension}")
        return root, tiny_dataset.make_dataset(root, dimension)

    return made


@pytest.fixture
def plans(tiny_data, monkeypatch, tmp_path):
    """The plans of the tiny 2D data set, which is in use; results go to a folder of the test's."""
    from tests import tiny_dataset

    root, plans = tiny_data(2)
    tiny_dataset.use(monkeypatch, root)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return plans
