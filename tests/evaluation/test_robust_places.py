"""OUT is no folder that the call reads."""

import pytest

from evaluation.robust import estimate, evaluate
from nnunetv2_lngswr.utils.errors import UserError


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
