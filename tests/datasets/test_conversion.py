"""What all conversions share: a second call changes nothing, a killed one goes on."""

import json
import shutil
import sys

import pytest

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets import conversion
from nnunetv2_lngswr.datasets.options import ImageOptions
from tests.datasets.folders import contents
from tests.datasets.image_files import TARGET, command, convert, read, save, speckle, square


def test_a_second_call_changes_nothing(busi, tmp_path):
    first = convert(busi, tmp_path / "raw")
    save(
        speckle(99), busi / "benign" / "benign (9).png"
    )  # has no mask: skipped, and still so the second time
    convert(busi, tmp_path / "raw")
    before = contents(first.folder)
    again = convert(busi, tmp_path / "raw")
    assert (again.converted, again.kept, len(again.skipped)) == (0, 8, 1)
    assert contents(first.folder) == before


def test_only_what_changed_is_converted_again(busi, tmp_path):
    first = convert(busi, tmp_path / "raw")
    before = contents(first.folder)
    save(square(slice(0, 4), slice(0, 4)), busi / "benign" / "benign (2)_mask.png")
    (busi / "malignant" / "malignant (4).png").unlink()
    (busi / "malignant" / "malignant (4)_mask.png").unlink()
    again = convert(busi, tmp_path / "raw")
    assert (again.converted, again.kept) == (1, 6)
    assert read(again.folder, "benign_2")[1].sum() == 16
    after = contents(again.folder)
    assert before.keys() - after.keys() == {
        "imagesTr/malignant_4_0000.png",
        "labelsTr/malignant_4.png",
    }
    untouched = [n for n in after if "Tr/" in n and "benign_2" not in n]
    assert len(untouched) == 12 and all(after[n] == before[n] for n in untouched)


def test_a_killed_call_goes_on_where_it_stopped(busi, tmp_path, monkeypatch):
    from nnunetv2_lngswr.datasets import image_folder

    real, calls = image_folder._convert_pair, []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(image_folder, "_convert_pair", dies)
    with pytest.raises(KeyboardInterrupt):
        convert(busi, tmp_path / "raw")
    folder = tmp_path / "raw" / TARGET.dataset_name
    assert not (folder / "manifest.json").exists()
    with open(folder / conversion.JOURNAL, "a") as journal:
        journal.write('{"unit": "benign/ben')  # torn by the kill
    monkeypatch.setattr(image_folder, "_convert_pair", real)
    done = convert(busi, tmp_path / "raw")
    assert (done.converted, done.kept) == (5, 3)
    assert not (folder / conversion.JOURNAL).exists()
    fresh = convert(busi, tmp_path / "fresh")
    assert {n: h for n, (h, _) in contents(folder).items()} == {
        n: h for n, (h, _) in contents(fresh.folder).items()
    }


def test_ctrl_c_and_a_full_disk_end_with_one_line_after_the_progress_bar(
    busi, tmp_path, monkeypatch, capsys
):
    from nnunetv2_lngswr.datasets import image_folder

    call = command(busi, tmp_path / "raw")
    for error, status, said in (
        (KeyboardInterrupt(), 130, "lngswr: interrupted; "),
        (OSError(28, "No space left on device", "x.png"), 2, "'x.png'; "),
    ):

        def fails(array, path, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(image_folder, "write_png", fails)
            assert cli.main(call) == status
        lines = capsys.readouterr().err.rstrip("\n").splitlines()
        assert (
            lines[-1].startswith("lngswr: ")
            and said in lines[-1]
            and lines[-1].endswith("the same call goes on")
        )
    assert cli.main(call) == 0


def test_splits_made_by_hand_stay_while_they_fit(busi, tmp_path):
    splits = convert(busi, tmp_path / "raw").folder / "splits_final.json"
    own = json.loads(splits.read_text())[::-1]
    splits.write_text(json.dumps(own))
    convert(busi, tmp_path / "raw")
    assert json.loads(splits.read_text()) == own
    save(speckle(50), busi / "benign" / "benign (5).png")
    save(square(slice(2, 8), slice(2, 8)), busi / "benign" / "benign (5)_mask.png")
    convert(busi, tmp_path / "raw")
    folds = json.loads(splits.read_text())
    assert all("benign_5" in fold["train"] + fold["val"] for fold in folds)


def test_a_progress_bar_unless_it_is_not_wanted(busi, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for disabled in ([], ["--disable_progress_bar"]):
        assert cli.main(command(busi, tmp_path / f"raw{len(disabled)}", *disabled)) == 0
        assert ("8/8" in capsys.readouterr().err) == (not disabled)


def test_a_log_gets_no_line_per_image(busi, tmp_path, capsys):
    assert cli.main(command(busi, tmp_path / "raw")) == 0
    assert capsys.readouterr().err == ""


def test_nothing_foreign_is_touched(busi, tmp_path):
    folder = tmp_path / "raw" / TARGET.dataset_name
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match="is no conversion"):
        convert(busi, tmp_path / "raw", overwrite=True)
    assert contents(folder).keys() == {"dataset.json"}
    shutil.move(folder, folder.with_name("Dataset701_Other"))
    with pytest.raises(ValueError, match="701 belongs to Dataset701_Other"):
        convert(busi, tmp_path / "raw")


def test_other_settings_need_overwrite(busi, tmp_path):
    convert(busi, tmp_path / "raw")
    with pytest.raises(ValueError, match="other settings .keep_empty.: add --overwrite"):
        convert(busi, tmp_path / "raw", options=ImageOptions(keep_empty=True))
    assert (
        convert(
            busi, tmp_path / "raw", options=ImageOptions(keep_empty=True), overwrite=True
        ).converted
        == 8
    )
