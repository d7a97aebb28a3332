"""A card written into a zip of nnUNetv2_export_model_to_zip, beside the model it is of.

The zip is copied to a temporary name, the card is appended, and the copy takes the zip's place when
the card's own files are written too: no byte of another entry is touched. Only the checkpoint that
was evaluated gets a card.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError, blamed_on
from nnunetv2_lngswr.utils.files import atomic_paths
from nnunetv2_lngswr.utils.names import refuse_no_utf8
from nnunetv2_lngswr.utils.zip_files import check_compression

_FOLD = "fold_"
_BLOCK = 2**20  # bytes
MOST_BYTES = 100 * _BLOCK
"""Of a file that is read from a zip."""


@dataclass(frozen=True, kw_only=True)
class ModelInZip:
    """Where in a zip the evaluated model is."""

    zip_file: Path
    folder: PurePosixPath
    """DATASET/TRAINER__PLANS__CONFIGURATION."""
    other_folds: tuple[str, ...]
    """Folds of that folder that the card says nothing of."""
    date: tuple[int, int, int, int, int, int]
    """Of its checkpoint."""


def find_model(zip_file: Path, model: Mapping[str, Any]) -> ModelInZip:
    """The folder in a zip whose checkpoints are the evaluated ones, by their SHA-256.

    Parameters
    ----------
    zip_file
        As nnUNetv2_export_model_to_zip writes it.
    model
        Of a card.

    Raises
    ------
    UserError
        It is no such zip, damaged, or holds other checkpoints (named).
    """
    refuse_no_utf8(zip_file)
    if not zip_file.is_file():
        raise UserError(f"{zip_file} does not exist; nnUNetv2_export_model_to_zip makes it")
    if not zipfile.is_zipfile(zip_file):
        raise UserError(f"{zip_file} is no zip file; nnUNetv2_export_model_to_zip makes one")
    with blamed_on(f"{zip_file} is damaged or of a kind that cannot be read"):
        with zipfile.ZipFile(zip_file) as archive:
            found = _checkpoints(archive, model["checkpoint"])
            return _matching(zip_file, archive, found, model)


def read_file(zip_file: Path, name: str) -> str:
    """The content of the only file of this name in the model folders of a zip.

    Raises
    ------
    UserError
        There is none, or several (named); it is damaged, too large, or no text.
    """
    with blamed_on(f"{zip_file} is damaged or of a kind that cannot be read"):
        with zipfile.ZipFile(zip_file) as archive:
            found = {e.filename: e for e in archive.infolist() if e.filename.endswith(f"/{name}")}
            if len(found) != 1:
                raise UserError(
                    f"{zip_file} must hold one {name}, got {', '.join(found) or 'none'}: "
                    "lngswr card OUT --into ZIP writes it, and OUT holds it, too"
                )
            (entry,) = found.values()
            check_compression(entry, zip_file)
            if entry.file_size > MOST_BYTES:
                raise UserError(f"{zip_file}: {entry.filename} is too large for a card")
            return archive.read(entry).decode()


def write_files(folder: Path, texts: Mapping[str, str], found: ModelInZip | None) -> None:
    """Write files into a folder, and into the model's folder in a zip: all of it or nothing.

    Parameters
    ----------
    folder
        Is made.
    texts
        {name: content}; they take the place of files of the same name.
    found
        Where in a zip, if in any.

    Raises
    ------
    OSError
        A full disk, no permission: the zip and the files stay as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # the zip, which takes most room, is written and takes its place first
    zips = [] if found is None else [found]
    with atomic_paths([*(z.zip_file for z in zips), *(folder / n for n in texts)]) as temporaries:
        for one, temporary in zip(zips, temporaries):
            _write_copy(one, texts, temporary)
        for text, temporary in zip(texts.values(), temporaries[len(zips) :]):
            temporary.write_bytes(text.encode())


def _write_copy(found: ModelInZip, texts: Mapping[str, str], copy: Path) -> None:
    """A copy of the zip with these files in the model's folder."""
    entries = {str(found.folder / name): text for name, text in texts.items()}
    shutil.copyfile(found.zip_file, copy)
    with zipfile.ZipFile(copy, "a", zipfile.ZIP_DEFLATED) as archive:
        for before in [i for i in archive.infolist() if i.filename in entries]:
            # no longer listed; its few bytes stay, since moving others would touch them
            archive.filelist.remove(before)
            archive.NameToInfo.pop(before.filename, None)
        for name, text in entries.items():
            entry = zipfile.ZipInfo(name, date_time=found.date)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)


Folds = dict[str, zipfile.ZipInfo]


def _checkpoints(archive: zipfile.ZipFile, name: str) -> dict[PurePosixPath, Folds]:
    """{model folder: {fold: entry of its checkpoint}}, by where they are unpacked to.

    Of several at one place the last is what unpacking leaves.
    """
    found: dict[PurePosixPath, Folds] = {}
    for entry in archive.infolist():
        # as ZipFile.extract has it
        parts = [p for p in entry.filename.split("/") if p not in ("", ".", "..")]
        if len(parts) >= 3 and parts[-1] == name and parts[-2].startswith(_FOLD):
            folder, fold = PurePosixPath(*parts[:-2]), parts[-2].removeprefix(_FOLD)
            found.setdefault(folder, {})[fold] = entry
    return found


def _matching(
    zip_file: Path,
    archive: zipfile.ZipFile,
    found: Mapping[PurePosixPath, Folds],
    model: Mapping[str, Any],
) -> ModelInZip:
    wanted, name = model["checkpoint_sha256"], model["checkpoint"]
    if not found:
        raise UserError(
            f"{zip_file} has no DATASET/TRAINER__PLANS__CONFIGURATION/fold_X/{name}: it is no "
            "exported model, or was exported without this checkpoint (-chk)"
        )
    different = []
    for folder, folds in found.items():
        reason = _difference(archive, folds, wanted)
        if not reason:
            first = folds[next(iter(wanted))]
            others = tuple(sorted(folds.keys() - wanted.keys()))
            return ModelInZip(
                zip_file=zip_file, folder=folder, other_folds=others, date=first.date_time
            )
        different.append(f"{folder}: {reason}")
    raise UserError(
        f"{zip_file} does not hold the {name} that was evaluated ({'; '.join(different)}); export "
        "the model that was evaluated, or evaluate this one"
    )


def _difference(archive: zipfile.ZipFile, folds: Folds, wanted: Mapping[str, str]) -> str:
    """Why these are not the evaluated checkpoints; empty where they are."""
    missing = [fold for fold in wanted if fold not in folds]
    if missing:
        return f"fold {', '.join(missing)} is missing"
    for fold, sha256 in wanted.items():
        there = _sha256(archive, folds[fold])
        if there != sha256:
            return f"fold {fold} has SHA-256 {there[:12]}, evaluated was {sha256[:12]}"
    return ""


def _sha256(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    check_compression(entry, archive.filename)
    digest = hashlib.sha256()
    with archive.open(entry) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
