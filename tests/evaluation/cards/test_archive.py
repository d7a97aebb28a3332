"""A card in an exported zip: nnU-Net still installs it, nothing else in it changes, and only the
checkpoint that was evaluated gets one."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from nnunetv2.model_sharing.model_export import export_pretrained_model
from nnunetv2.model_sharing.model_import import install_model_from_zip_file

from evaluation.card import main, make_card
from evaluation.cards.archive import find_model, read_file
from evaluation.results_folder import CARD_JSON, CARD_MD
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.cards.outs import make_out, sha

DATASET = "Dataset999_Tiny"
# what nnU-Net exports besides, which the evaluation does not need
BESIDES = ("fold_0/progress.png", "fold_0/validation/summary.json", "dataset_fingerprint.json")


@pytest.fixture(scope="module")
def exported(world, tmp_path_factory):
    """A zip of `world`'s model by nnU-Net's own export, and what it was made of."""
    results = tmp_path_factory.mktemp("results")
    folder = results / DATASET / world[0].name
    shutil.copytree(world[0], folder)
    for name in BESIDES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{name} {'x' * 500}")
    file = tmp_path_factory.mktemp("exported") / "model.zip"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("nnUNet_results", str(results))
        export_pretrained_model(DATASET, str(file), configurations=("2d",), folds=(0,))
    return file, results


@pytest.fixture
def model_zip(exported, tmp_path):
    return Path(shutil.copy(exported[0], tmp_path / "model.zip"))


def place_of(model_zip):
    """The model's folder in it."""
    with zipfile.ZipFile(model_zip) as archive:
        return next(n for n in archive.namelist() if n.endswith("plans.json"))[
            : -len("/plans.json")
        ]


def raw_entries(file):
    """{name: all bytes from its header to the next one}."""
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        entries = sorted(archive.infolist(), key=lambda e: e.header_offset)
        ends = [e.header_offset for e in entries[1:]] + [archive.start_dir]
        return {e.filename: content[e.header_offset : end] for e, end in zip(entries, ends)}


def files_in(folder):
    found = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def test_nnunet_installs_the_zip_with_the_card_beside_the_model(
    finished, exported, model_zip, tmp_path, monkeypatch, capsys
):
    before = raw_entries(model_zip)
    card = tmp_path / "card"
    assert main([str(finished.folder), "-o", str(card), "--into", str(model_zip)]) == 0
    assert place_of(model_zip) in capsys.readouterr().out
    after = raw_entries(model_zip)
    assert {name: after[name] for name in before} == before
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "installed"))
    install_model_from_zip_file(str(model_zip))
    installed, original = files_in(tmp_path / "installed"), files_in(exported[1])
    place = Path(place_of(model_zip))
    for name in (CARD_JSON, CARD_MD):
        assert installed.pop(str(place / name)) == (card / name).read_bytes()
    assert installed == original
    assert [p.name for p in tmp_path.glob(".partial*")] == []


def test_a_second_card_takes_the_place_of_the_first(finished, model_zip, tmp_path):
    before = raw_entries(model_zip)
    for name in ("first", "second"):
        make_card([finished.folder], tmp_path / name, name=name, into=model_zip)
    with zipfile.ZipFile(model_zip) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        text = archive.read(f"{place_of(model_zip)}/{CARD_JSON}").decode()
    assert len(names) == len(set(names)) == len(before) + 2
    assert '"name": "second"' in text
    after = raw_entries(model_zip)
    # a raw entry ends where the next listed one begins: the first card's bytes are behind the last
    assert all(after[name].startswith(content) for name, content in before.items())


def test_another_checkpoint_is_refused_and_nothing_is_written(finished, model_zip, tmp_path):
    other = make_out(tmp_path / "other", checkpoint="another")
    before = model_zip.read_bytes()
    with pytest.raises(UserError, match=f"evaluated was {sha('another')[:12]}") as error:
        # of a checkpoint of the name that the zip has
        make_card([_with_name(other)], tmp_path / "card", into=model_zip)
    assert "\n" not in str(error.value) and str(model_zip) in str(error.value)
    assert model_zip.read_bytes() == before and not (tmp_path / "card").exists()


def test_what_unpacking_leaves_is_what_counts(finished, model_zip):
    """A second entry for the same place would be installed in place of the evaluated one."""
    model = make_card([finished.folder], model_zip.parent / "card").card["model"]
    assert find_model(model_zip, model).other_folds == ()
    with zipfile.ZipFile(model_zip, "a") as archive:
        archive.writestr(f"{place_of(model_zip)}/fold_0/./checkpoint_final.pth", b"something else")
    with pytest.raises(
        UserError, match="does not hold the checkpoint_final.pth that was evaluated"
    ):
        find_model(model_zip, model)


def test_of_several_models_in_a_zip_the_evaluated_one_gets_the_card(finished, model_zip, tmp_path):
    model = make_card([finished.folder], tmp_path / "card").card["model"]
    place = place_of(model_zip)
    with zipfile.ZipFile(model_zip, "a") as archive:
        archive.writestr(f"{DATASET}/A__B__3d_fullres/fold_0/checkpoint_final.pth", b"3d")
        archive.writestr(f"{place}/fold_3/checkpoint_final.pth", b"of another fold")
    found = find_model(model_zip, model)
    assert str(found.folder) == place and found.other_folds == ("3",)


def test_a_fold_that_is_missing_is_named(finished, model_zip, tmp_path):
    model = dict(make_card([finished.folder], tmp_path / "card").card["model"])
    model["checkpoint_sha256"] = model["checkpoint_sha256"] | {"4": sha("four")}
    with pytest.raises(UserError, match="fold 4 is missing"):
        find_model(model_zip, model)


@pytest.mark.parametrize(
    "of, name",
    [(zipfile.ZipFile, "writestr"), (shutil, "copyfile"), (Path, "write_bytes"), (os, "fsync")],
    ids=["within the zip", "no zip", "within the card", "when it is flushed"],
)
def test_a_full_disk_leaves_zip_and_card_as_they_were(
    finished, model_zip, tmp_path, monkeypatch, of, name
):
    card = tmp_path / "card"
    make_card([finished.folder], card, name="first")
    before = model_zip.read_bytes(), files_in(card)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(of, name, full)
        with pytest.raises(OSError, match="No space"):
            make_card([finished.folder], card, name="second", into=model_zip)
    assert (model_zip.read_bytes(), files_in(card)) == before
    assert [p.name for p in tmp_path.rglob("*") if "partial" in p.name] == []


def _damaged(content):
    # in the middle of the checkpoint, which is by far the largest
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(255 - b for b in content[middle : middle + 64])
        + content[middle + 64 :]
    )


NO_MODEL = {
    "a text": (lambda content: b"hello", "no zip file"),
    "cut": (lambda content: content[: len(content) // 2], "no zip file"),
    "damaged": (_damaged, "damaged"),
}


@pytest.mark.parametrize("name", NO_MODEL)
def test_what_is_no_exported_model_is_refused(finished, model_zip, tmp_path, name):
    change, says = NO_MODEL[name]
    model_zip.write_bytes(change(model_zip.read_bytes()))
    with pytest.raises(UserError, match=says) as error:
        make_card([finished.folder], tmp_path / "card", into=model_zip)
    assert "\n" not in str(error.value) and not (tmp_path / "card").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_may_unpack_to_any_size_is_not_unpacked(finished, model_zip, tmp_path, method):
    with zipfile.ZipFile(model_zip) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(model_zip, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match="is compressed by .*, which is not read here"):
        make_card([finished.folder], tmp_path / "card", into=model_zip)
    with zipfile.ZipFile(tmp_path / "card.zip", "w", method) as archive:
        archive.writestr("d/m/robustness_card.json", bytes(10**6))
    with pytest.raises(UserError, match="is compressed by .*, which is not read here"):
        read_file(tmp_path / "card.zip", "robustness_card.json")


def test_a_zip_without_a_model_is_refused(finished, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "b")
    with pytest.raises(UserError, match="it is no exported model"):
        make_card([finished.folder], tmp_path / "card", into=tmp_path / "a.zip")
    with pytest.raises(UserError, match="does not exist"):
        make_card([finished.folder], tmp_path / "card", into=tmp_path / "b.zip")


def _with_name(out):
    summary = out / "summary.json"
    text = summary.read_text()
    summary.write_text(text.replace('"c.pth"', '"checkpoint_final.pth"'))
    return out
