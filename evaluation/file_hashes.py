"""SHA-256 of files, each read once while its size and times stay.

Times are compared with themselves only, never with a clock or with each other, so that a clock that
is set back, or another host's, changes nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.array_cases import ArrayCase
from evaluation.inputs import CaseFiles, CaseSource
from nnunetv2_lngswr.utils.errors import UserError

State = list[int]
"""Size, time of the content and time of the inode, which `cp -p` and `touch` do not set back."""


class FileHashes:
    """Hashes that are kept by the state of their files."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[State, str]] = {}

    def sha256(self, path: Path) -> str:
        """Of one file."""
        state = file_state(path)
        known = self._known.get(path)
        if known is not None and known[0] == state:
            return known[1]
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if file_state(path) == state:  # else it was written to while it was read
            self._known[path] = state, found
        return found

    def of_case(self, files: CaseSource) -> dict[str, Any]:
        """What a part keeps of its case's files; of arrays their hash.

        'inputs_sha256' of all of them, and 'inputs_state' to tell without reading them that they
        are the same; of a cascade also 'image_and_label_sha256' and 'previous_stage_sha256', since
        models that are compared have images and labels in common, but not their previous stage.
        """
        if isinstance(files, ArrayCase):
            return dict(files.hashes)
        assert isinstance(files, CaseFiles)
        paths = _paths(files)
        states = [file_state(p) for p in paths]
        kept = {"inputs_sha256": self._of_all(paths), "inputs_state": states}
        if files.previous_stage is not None:
            kept["image_and_label_sha256"] = self._of_all([*files.images, files.label])
            kept["previous_stage_sha256"] = self.sha256(files.previous_stage)
        return kept

    def are_of(self, files: CaseSource, kept: Mapping[str, Any]) -> bool:
        """Whether a part that keeps this was made from the files as they are now."""
        if isinstance(files, ArrayCase):
            return all(kept.get(k) == v for k, v in files.hashes.items())
        assert isinstance(files, CaseFiles)
        if kept.get("inputs_state") == [file_state(p) for p in _paths(files)]:
            return True
        return kept["inputs_sha256"] == self._of_all(_paths(files))

    def _of_all(self, paths: Sequence[Path]) -> str:
        digest = hashlib.sha256()
        for path in paths:
            digest.update(bytes.fromhex(self.sha256(path)))
        return digest.hexdigest()


class ModelFiles:
    """What a model folder was made of when an evaluation began.

    Parameters
    ----------
    paths
        Files that the model is read from.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._hashes = FileHashes()
        self.sha256 = {path: self._hashes.sha256(path) for path in paths}

    def check(self) -> None:
        """Refuse what is no longer as it was.

        Raises
        ------
        UserError
            A file that is gone or has another content.
        """
        for path, before in self.sha256.items():
            self.check_file(path, self._hashes.sha256(path) if path.is_file() else None, before)

    def check_file(self, path: Path, now: str | None, before: str | None = None) -> None:
        """The same of one file, of which somebody else has found the hash."""
        before = self.sha256[path] if before is None else before
        if now == before:
            return
        found = "it is gone" if now is None else f"its SHA-256 was {before[:16]}, is {now[:16]}"
        raise UserError(
            f"{path} has changed while the model was evaluated: {found}; finished cases are kept "
            "as those of the model before. Put it back to go on, or evaluate the new model into "
            "another folder or with --overwrite"
        )


def file_state(path: Path) -> State:
    """Of a file, to tell whether it has been changed; equal states mean that it has not."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _paths(files: CaseFiles) -> list[Path]:
    previous = [] if files.previous_stage is None else [files.previous_stage]
    return [*files.images, files.label, *previous]
