"""Models that travel with a pickled pipeline."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Mapping

from ._latentflow import Engine

#: Maximum size of all models of a pipeline, in bytes.
MAX_BYTES = 256 << 20


class EmbeddedModels:
    """The files of all models of a pipeline.

    Each machine writes them once, to a folder that only the user can access.
    """

    def __init__(self, engine: Engine):
        files: dict[str, bytes] = {}
        self._options: dict[str, str] = {}
        for model, (options, paths) in engine.model_files.items():
            bases = {key: path if path.is_dir() else path.parent for key, path in options.items()}
            numbers = {base: number for number, base in enumerate(dict.fromkeys(bases.values()))}
            for path in paths:
                base = next(base for base in numbers if path.is_relative_to(base))
                files[f"{model}/{numbers[base]}/{path.relative_to(base).as_posix()}"] = path.read_bytes()
            for key, path in options.items():
                inside = path.relative_to(bases[key]).as_posix()
                self._options[f"models.{model}.{key}"] = f"{model}/{numbers[bases[key]]}/{inside}"
        size = sum(map(len, files.values()))
        if size > MAX_BYTES:
            raise ValueError(
                f'the models have {size} bytes, more than the maximum of {MAX_BYTES} for models="embed"; copy the model '
                'folders to all machines and use models="path"'
            )
        self._archive = _archive(files)
        #: SHA-256 of the archive.
        self.digest = hashlib.sha256(self._archive).hexdigest()

    def overrides(self) -> list[str]:
        """Writes the files, unless they exist, and returns the overrides of the paths of the pipeline."""
        folder = _user_folder() / self.digest
        if not folder.is_dir():
            self._write(folder)
        return [f"{key}={json.dumps(str(folder / path))}" for key, path in self._options.items()]

    def _write(self, folder: pathlib.Path) -> None:
        temporary = pathlib.Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            with tarfile.open(fileobj=io.BytesIO(self._archive)) as archive:
                archive.extractall(temporary, filter="data")
            temporary.rename(folder)
        except OSError:
            # Another process has written the same files.
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _user_folder() -> pathlib.Path:
    """A folder for the files of this user, in the folder for temporary files."""
    folder = pathlib.Path(tempfile.gettempdir()) / f"latentflow-models-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(
                f"{folder}: other users can access this folder; remove it, or set TMPDIR to a private folder"
            ) from None
    return folder
