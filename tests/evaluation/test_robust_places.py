"""OUT is no folder that the call reads, nor one of other settings, which are named as the flags."""

import pytest

from evaluation.model.readers import list_images
from evaluation.robust import estimate, evaluate
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.tiny import run


@pytest.mark.parametrize("function", [evaluate, estimate])
@pytest.mark.parametrize("place", ["images", "labels", "model"])
def test_results_are_not_written_into_what_is_read(tmp_path, function, place):
    folders = {name: tmp_path / name for name in ("images", "labels", "model")}
    for folder in folders.values():
        folder.mkdir()
    (tmp_path / "link").symlink_to(folders[place])
    model = folders.pop("model")
    for out in (tmp_path / place, tmp_path / "link"):
        with pytest.raises(UserError, match="is read by this very call"):
            function(model, out, **folders)
    assert not any((tmp_path / place).iterdir())


def test_other_settings_are_named_as_the_flags_are(finished, world):
    with pytest.raises(UserError, match=r"other settings \(options\.corruptions: was .*, is \["):
        run(world, finished.folder, corruptions=["contrast"])


def test_a_folder_of_other_images_is_told_what_it_has(tmp_path):
    for name in ("a_0000.png", "b_0000.png", "c.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"files that end in \.nii\.gz, \.png$"):
        list_images(tmp_path, ".nii.gz")
