"""What is trained and evaluated once for all tests of the evaluation."""

import pytest

from tests import model_folders
from tests.evaluation.tiny import run
from tests.model_folders import make_case, make_model_folder


@pytest.fixture(scope="session")
def state_dicts():
    """{dimension: weights that segment balls}."""
    found = {}
    for dimension in (2, 3):
        x, y = model_folders.batch(dimension)
        found[dimension] = model_folders.fit(
            model_folders.make_network(dimension), x, y
        ).state_dict()
    return found


@pytest.fixture(scope="session")
def world(tmp_path_factory, state_dicts):
    """(model folder, images, labels): 2D, three cases; nobody changes it."""
    root = tmp_path_factory.mktemp("world")
    folder = make_model_folder(root, state_dicts=[state_dicts[2]])
    for seed in range(3):
        make_case(root / "images", shape=(20, 24), seed=seed)
    return folder, root / "images", root / "images" / "labels"


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory):
    """What `evaluate` returned for `world` in one process; nobody changes its folder."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return run(world, out)
