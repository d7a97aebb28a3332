"""LIDC-IDRI's download end to end: what belongs together, what is named, a second call."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets.lidc import convert_lidc
from nnunetv2_lngswr.datasets.options import LidcOptions
from tests.datasets.folders import contents
from tests.datasets.lidc_download import (
    TARGET,
    arrays,
    cases,
    middle,
    run,
    scan_name,
    series_folder,
    skipped,
    stored,
    two_nodules,
)
from tests.datasets.lidc_files import ROOT, write_series, write_xml


def scans_command(folder: Path, raw: Path) -> list[str]:
    options = ["--form", "scans", "--folds", "2", "--disable_progress_bar"]
    return ["convert-dataset", "lidc", "-i", str(folder), "-o", str(raw), *options]


def test_missing_xml_is_named_and_the_rest_converted(lidc, tmp_path, capsys):
    (series_folder(lidc, 2) / "002.xml").unlink()
    command = scans_command(lidc, tmp_path / "raw")
    assert cli.main(command) == 1
    said = capsys.readouterr()
    assert (
        f"{series_folder(lidc, 2).relative_to(lidc)}: no XML annotates series {ROOT}2" in said.err
        and "2 used" in said.out
    )
    # once it is there only that scan is converted, and nothing is wrong any more
    write_xml(
        series_folder(lidc, 2) / "002.xml",
        "2",
        two_nodules([f"{ROOT}2.{z + 1}" for z in range(10)]),
    )
    assert cli.main(command) == 0
    assert "3 used" in (out := capsys.readouterr().out) and "1 units converted now, 2 before" in out


def test_xml_in_a_folder_of_its_own(lidc, tmp_path):
    apart = tmp_path / "tcia-lidc-xml" / "157"
    apart.mkdir(parents=True)
    for number in (1, 2, 3):
        shutil.move(series_folder(lidc, number) / f"{number:03d}.xml", apart)
    write_xml(apart / "xray.xml", "55", [[]], root="IdriReadMessage")
    done = convert_lidc(
        lidc,
        tmp_path / "raw",
        TARGET,
        annotations=apart.parent,
        options=LidcOptions(form="scans"),
        progress=False,
    )
    assert len(cases(done)) == 3 and done.skipped == []
    assert any(e.reason == "readings of a chest radiograph" for e in done.entries)


def test_two_series_in_a_folder(lidc, tmp_path):
    write_series(series_folder(lidc), stored(9), series="9", prefix="other")
    done = run(lidc, tmp_path / "raw", form="scans")
    assert len(cases(done)) == 3
    assert np.array_equal(arrays(done, scan_name())[0], stored(1) - 1024)
    ((name, reason),) = skipped(done).items()
    assert (
        name.startswith("other")
        and reason == f"no XML annotates series {ROOT}9; the folder also holds series {ROOT}1"
    )


def test_radiographs_are_left_out(lidc, tmp_path):
    write_series(lidc / "LIDC-IDRI-0001" / "x" / "dx", stored(9)[:1], series="8", modality="DX")
    done = run(lidc, tmp_path / "raw", form="scans")
    assert (
        len(cases(done)) == 3
        and done.skipped == []
        and any("modality DX" in e.reason for e in done.entries)
    )


def test_xml_that_fits_nothing(lidc, tmp_path):
    folder = series_folder(lidc)
    (folder / "damaged.xml").write_text("<LidcReadMessage>")
    write_xml(folder / "stranger.xml", "66", [[]])
    write_xml(series_folder(lidc, 2) / "second.xml", "2", [[]])
    done = run(lidc, tmp_path / "raw", form="scans")
    found = skipped(done)
    assert (
        "not readable as XML" in found["damaged.xml"]
        and f"series {ROOT}66, which is not in this folder" in found["stranger.xml"]
    )
    assert any("several different XML files annotate series" in r for r in found.values())
    assert cases(done) == [scan_name(1), scan_name(3)]


def test_a_scan_in_two_folders_is_used_once(lidc, tmp_path):
    alone = contents(run(lidc, tmp_path / "alone").folder)
    shutil.copytree(series_folder(lidc, 1), lidc / "broken copy of 0001")
    # its slices would be counted, and named, otherwise
    middle(lidc / "broken copy of 0001", 0).unlink()
    (lidc / "broken copy of 0001").rename(lidc / "Z")
    done = run(lidc, tmp_path / "raw")
    (entry,) = done.skipped
    assert entry.source == "Z" and entry.reason.startswith(
        f"series {ROOT}1 is converted from LIDC-IDRI-0001/"
    )
    before = contents(done.folder)
    assert {n: h for n, (h, _) in before.items() if "Tr/" in n} == {
        n: h for n, (h, _) in alone.items() if "Tr/" in n
    }
    again = run(lidc, tmp_path / "raw")
    assert again.converted == 0 and contents(done.folder) == before
    # without the first it is the second's turn
    shutil.rmtree(series_folder(lidc, 1))
    last = run(lidc, tmp_path / "raw")
    assert (
        last.converted == 1 and last.skipped == [] and any(scan_name(1) in c for c in cases(last))
    )


@pytest.mark.parametrize(
    "name, found",
    [
        ("1.3.6.1.4.1.14519.5.2.1.6279.6001.77", True),
        ("IM-0001", True),
        ("1-05.DCM", True),
        ("notes.txt", False),
    ],
)
def test_dicom_files_of_any_name(lidc, tmp_path, name, found):
    file = middle(series_folder(lidc), 3)
    file.rename(file.with_name(name))
    done = run(lidc, tmp_path / "raw")
    assert (f"{scan_name()}_z004" in cases(done)) == found and bool(done.skipped) != found


def test_a_full_disk_leaves_no_torn_image(lidc, tmp_path, monkeypatch, capsys):
    """ITK writes what fits and says nothing."""
    real = sitk.WriteImage

    def full(image, path, **options):
        real(image, path, **options)
        if "0002" in path:
            Path(path).write_bytes(Path(path).read_bytes()[:500])

    monkeypatch.setattr(sitk, "WriteImage", full)
    command = scans_command(lidc, tmp_path / "raw")
    assert cli.main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        said.startswith("lngswr: [Errno 28] could not be written whole")
        and "the same call goes on" in said
    )
    folder = tmp_path / "raw" / "Dataset620_LIDC"
    assert [p.name for p in (folder / "imagesTr").iterdir()] == [
        f"{scan_name(1)}_0000.nii.gz"
    ] and not (folder / "manifest.json").exists()
    monkeypatch.setattr(sitk, "WriteImage", real)
    assert cli.main(command) == 0 and "2 units converted now, 1 before" in capsys.readouterr().out


def test_a_second_call_reads_no_scan_and_changes_nothing(lidc, tmp_path, monkeypatch):
    first = run(lidc, tmp_path / "raw")
    before = contents(first.folder)
    monkeypatch.setattr(
        "nnunetv2_lngswr.datasets.lidc.read_header", lambda path: pytest.fail(f"read {path}")
    )
    again = run(lidc, tmp_path / "raw")
    assert (again.converted, again.kept) == (0, 3) and contents(first.folder) == before


def test_patients_stay_together_in_the_splits(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", consensus="any")
    for fold in json.loads((done.folder / "splits_final.json").read_text()):
        train, val = ({c.split("_")[0] for c in fold[part]} for part in ("train", "val"))
        assert train and val and not train & val


def test_a_folder_without_dicom(tmp_path, capsys):
    assert (
        cli.main(["convert-dataset", "lidc", "-i", str(tmp_path), "-o", str(tmp_path / "raw")]) == 2
    )
    assert "holds no DICOM files" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
