"""Every kind of bad model folder ends in one line, in evaluate and in warm-start."""

import re

import pytest

from evaluation.model.folder import SegmentationModel
from nnunetv2_lngswr.training.warm_start import warm_start_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from tests.bad_models import CHECKPOINT, damaged, kinds, prediction_kinds
from tests.model_folders import make_model_folder

BOTH, ONLY_PREDICTION = kinds(), prediction_kinds()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return make_model_folder(tmp_path_factory.mktemp("good"))


def said_of(call):
    with pytest.raises(UserError) as raised:
        call()
    text = str(raised.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "damage, said", (BOTH | ONLY_PREDICTION).values(), ids=BOTH | ONLY_PREDICTION
)
def test_evaluate_refuses_it(damage, said, good, tmp_path):
    folder = damaged(good, tmp_path, damage)
    text = said_of(lambda: SegmentationModel.from_folder(folder))
    assert re.search(said, text), text
    assert str(folder) in text or "trainer" in text


@pytest.mark.parametrize("damage, said", BOTH.values(), ids=BOTH)
def test_warm_start_refuses_it_and_writes_nothing(damage, said, good, tmp_path):
    source = damaged(good, tmp_path, damage) / CHECKPOINT
    out = tmp_path / "out.pth"
    text = said_of(lambda: warm_start_checkpoint(source, out))
    assert str(source) in text
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*"))


def test_the_tables_hold_what_they_promise():
    assert len(BOTH) >= 90 and len(ONLY_PREDICTION) >= 12


def test_a_good_folder_passes_both(good, tmp_path):
    folder = damaged(good, tmp_path, lambda *_: None)
    SegmentationModel.from_folder(folder)
    warm_start_checkpoint(folder / CHECKPOINT, tmp_path / "out.pth")
