"""Reads a Dockerfile into the instructions of its stages, as far as deploy/docker/Dockerfile needs it."""

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """A stage: the image that it begins with, its name, and its instructions as pairs of a word and the text after it."""

    image: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


def read(path):
    """The stages of the file, in their order. `${NAME}` in FROM is replaced by the default of the argument."""
    text = "\n".join(line for line in Path(path).read_text().splitlines() if not line.lstrip().startswith("#"))
    arguments, stages = {}, []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word == "ARG" and not stages:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            image, _, name = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], rest).partition(" AS ")
            stages.append(Stage(image, name))
        elif word:
            stages[-1].instructions.append((word, rest))
    return stages


def commands(run):
    """The commands of a RUN that `&&` joins, without its options."""
    without_options = re.sub(r"^(--\w+=\S+\s+)+", "", run)
    return [command.strip() for command in without_options.split("&&")]


def is_ignored(path, ignore_file):
    """Whether a path of the checkout is left out by a .dockerignore, whose patterns are names and `**/` before a name."""
    parts = path.split("/")
    for pattern in ignore_file.read_text().split("\n"):
        if not pattern or pattern.startswith("#"):
            continue
        wanted = pattern.removeprefix("**/").split("/")
        starts = range(len(parts)) if pattern.startswith("**/") else [0]
        if any(parts[start : start + len(wanted)] == wanted for start in starts):
            return True
    return False
