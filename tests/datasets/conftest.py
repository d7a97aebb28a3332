import shutil
import tempfile
from pathlib import Path

import pytest

from tests.datasets.image_files import save, speckle, square


@pytest.fixture
def lidc(tmp_path) -> Path:
    from tests.datasets.lidc_download import download  # needs pydicom, which not everyone has

    return download(tmp_path / "LIDC-IDRI")


@pytest.fixture
def busi(tmp_path) -> Path:
    """BUSI's layout.

    Masks beside images, several per image, RGB saved grey images, blanks and brackets in names.
    """
    folder = tmp_path / "Dataset_BUSI_with_GT"
    for number in range(1, 5):
        for seed, kind in enumerate(("benign", "malignant")):
            save(speckle(10 * number + seed), folder / kind / f"{kind} ({number}).png", "RGB")
            save(square(slice(2, 8), slice(2, 8)), folder / kind / f"{kind} ({number})_mask.png")
    save(square(slice(10, 15), slice(5, 20)), folder / "benign" / "benign (1)_mask_1.png", "RGB")
    return folder


@pytest.fixture
def shared_folder():
    """A folder that every user may write to; pytest's own are the user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="lngswr-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)
