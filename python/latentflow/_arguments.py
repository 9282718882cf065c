"""Texts of the command line, for arguments of Python."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ._pipeline import PipelineError

Texts = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def texts(value: Texts) -> list[str]:
    """A list of texts or paths, or a single one."""
    if isinstance(value, (str, os.PathLike)):
        return [os.fspath(value)]
    return [os.fspath(item) for item in value]


def in_python(message: str) -> str:
    """A message with the options of the command line as arguments: `restart` for --restart."""
    return re.sub(r"--([a-z][a-z-]*)", lambda option: f"`{option[1].replace('-', '_')}`", message)


def read_text(file: str | os.PathLike[str], kind: str) -> tuple[str, str]:
    """The name and the text of a file, which is a path, or the text itself with several lines."""
    text = os.fspath(file)
    if "\n" in text:
        return f"{kind}.toml", text
    try:
        with open(text, encoding="utf-8") as opened:
            return text, opened.read()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{text}: cannot read the {kind} file: {error}") from error
