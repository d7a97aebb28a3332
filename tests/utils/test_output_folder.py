"""What a folder that a command writes to may be."""

import pytest

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.output_folder import output_folder


def test_a_folder_is_there_or_can_be_made(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "far")
    assert output_folder(tmp_path / "link" / "x") == tmp_path / "far" / "x"
    assert list(tmp_path.iterdir()) == [tmp_path / "link"]


@pytest.mark.parametrize("path", ["file", "file/below/it", "circle", "circle/below/it"])
def test_files_and_circles_are_refused(tmp_path, path):
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(UserError, match="choose another .*-o"):
        output_folder(tmp_path / path)
