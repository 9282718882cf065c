#!/usr/bin/env python3
"""Runs pages of docs/cookbook/ as they are written.

The fenced blocks of a page run one after another in an empty folder: `sh` blocks by a shell, `python` blocks as one program per
block. A `toml` or `python` block whose first line is a comment such as `# pipeline.toml` becomes that file. Commands of the page find
`latentflow` and the Python of a virtual environment for the page, which is kept. The folder `photos` holds drawn pictures.

usage: cookbook.py [--latentflow BINARY] [--environments FOLDER] [PAGE ...]

PAGE is a file name without `.md`. By default all pages run that contain the sentence `This page runs as it is written`.
"""
import argparse
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import time
import venv
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "cookbook"
RUNS = "This page runs as it is written"


def blocks(text):
    """The blocks of a page: their language, first line number and content."""
    language, start, lines = None, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.fullmatch(r"```(\w*)", line)
        if fence and language is None:
            language, start, lines = fence[1], number + 1, []
        elif fence:
            yield language, start, "\n".join(lines) + "\n"
            language = None
        elif language is not None:
            lines.append(line)
    if language is not None:
        raise ValueError(f"the block that begins in line {start} has no end")


def environment(folder, page):
    """The variables of the page's commands, with the virtual environment first in PATH."""
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(folder / "bin"), str(page / "bin"), os.environ["PATH"]]),
        "VIRTUAL_ENV": str(folder),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_QUIET": "1",
        "PIP_PROGRESS_BAR": "off",
    }


def draw_photos(folder, count=12):
    """Writes PNG pictures of gradients and discs, of several sizes."""
    folder.mkdir()
    for number in range(count):
        width, height = 160 + 16 * (number % 5), 120 + 12 * (number % 4)
        rows = bytearray()
        for y in range(height):
            rows.append(0)  # The filter of the row.
            for x in range(width):
                inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (20 + 5 * number) ** 2
                red, green = 255 * x // width, 255 * y // height
                rows += bytes([red, green, 40 + 15 * number] if inside else [green, 128, 255 - red])
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b"")]
        png = b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
        )
        (folder / f"photo-{number:02}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)


def run(page, latentflow, environments):
    """Runs a page, and raises an error at the block that fails."""
    source = PAGES / f"{page}.md"
    with tempfile.TemporaryDirectory(prefix=f"cookbook-{page}-") as temporary:
        scratch = pathlib.Path(temporary)
        work = scratch / "work"
        work.mkdir()
        (scratch / "bin").mkdir()
        (scratch / "bin" / "latentflow").symlink_to(latentflow)
        draw_photos(work / "photos")
        variables = environment(environments / page, scratch)
        for language, line, content in blocks(source.read_text(encoding="utf-8")):
            named = re.match(r"# (\S+\.(?:toml|py))\n", content)
            if named:
                (work / named[1]).write_text(content, encoding="utf-8")
                continue
            if language == "sh":
                command = ["sh", "-euc", content]
            elif language == "python":
                # The lines of a traceback are those of the page.
                program = work / source.name.replace(".md", ".py")
                program.write_text("\n" * (line - 1) + content, encoding="utf-8")
                command = [str(environments / page / "bin" / "python"), str(program)]
            else:
                continue
            done = subprocess.run(command, cwd=work, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode != 0:
                sys.exit(f"{source}:{line}: exit code {done.returncode}\n{done.stdout}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE")
    parser.add_argument("--latentflow", type=pathlib.Path, default=ROOT / "target" / "debug" / "latentflow")
    parser.add_argument("--environments", type=pathlib.Path, default=ROOT / ".runtime" / "cookbook")
    options = parser.parse_args()
    if not options.latentflow.is_file():
        sys.exit(f"{options.latentflow} does not exist; build it with `make build`, or name it with --latentflow")
    for page in options.pages or sorted(path.stem for path in PAGES.glob("*.md") if RUNS in path.read_text(encoding="utf-8")):
        start = time.monotonic()
        run(page, options.latentflow.resolve(), options.environments.resolve())
        print(f"{page}: {time.monotonic() - start:.0f} s", flush=True)


main()
