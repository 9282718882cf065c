#!/usr/bin/env python3
"""Checks every relative link and every anchor of the Markdown files of the repository. Prints the line of each broken one.

Anchors are those of GitHub. Files in `target`, `.runtime`, hidden folders and other ignored folders are left out.
"""

import pathlib
import re
import subprocess
import sys
import unicodedata
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEFT_OUT = {"target", ".runtime", ".bench", "node_modules"}

FENCE = re.compile(r"^\s*(?:>\s*)*(`{3,}|~{3,})")
HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
CODE = re.compile(r"(`+)(?:(?!\1).)+?\1")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)")
ID = re.compile(r"<[a-zA-Z][^>]*?\s(?:id|name)=[\"']([^\"']+)[\"']")


def markdown_files(root):
    """The Markdown files that Git tracks or would track; all of them where there is no Git."""
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
        paths = [root / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        paths = root.rglob("*.md")
    inside = lambda path: not LEFT_OUT & set(path.relative_to(root).parts)
    return sorted({path for path in paths if path.is_file() and inside(path)})


def lines_outside_code(text):
    """The numbered lines without fenced blocks."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        found = FENCE.match(line)
        if fence is None and found:
            fence = found[1]
        elif fence is not None:
            if found and found[1].startswith(fence) and not line.strip(" >").strip(fence[0]):
                fence = None
        else:
            yield number, line


def anchor(title):
    """The anchor of a heading: lower case, without punctuation, with hyphens for spaces."""
    title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title)
    title = re.sub(r"`+|\*+|(?<!\w)_|_(?!\w)|<[^>]*>", "", title)
    kept = lambda char: char in " -_" or unicodedata.category(char)[0] in "LNM"
    return "".join(char for char in title.strip().lower() if kept(char)).replace(" ", "-")


def anchors(path, known):
    """The anchors of a file. A heading that occurs again has a number at its end."""
    if path not in known:
        found, counts = set(), {}
        for _, line in lines_outside_code(path.read_text(encoding="utf-8")):
            found.update(ID.findall(line))
            heading = HEADING.match(line)
            if heading:
                name = anchor(heading[2])
                count = counts.get(name, 0)
                counts[name] = count + 1
                found.add(f"{name}-{count}" if count else name)
        known[path] = found
    return known[path]


def fault(path, target, root, known):
    """The reason why a link of `path` is broken; `None` if it is valid."""
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//", target):
        return None
    location, _, fragment = urllib.parse.unquote(target).partition("#")
    if location.startswith("/"):
        return "an absolute path; write a path relative to the file"
    found = (path.parent / location).resolve() if location else path
    if not found.is_relative_to(root):
        return "leaves the repository"
    if not found.exists():
        return "no such file"
    if fragment and found.suffix == ".md" and fragment not in anchors(found, known):
        return f"{found.relative_to(root)} has no heading `#{fragment}`"
    return None


def check(root):
    """The broken links, one per line."""
    known, faults, links = {}, [], 0
    for path in markdown_files(root):
        for number, line in lines_outside_code(path.read_text(encoding="utf-8")):
            plain = CODE.sub(lambda code: " " * len(code[0]), line)
            definition = DEFINITION.match(plain)
            for target in LINK.findall(plain) + ([definition[1]] if definition else []):
                links += 1
                reason = fault(path, target, root, known)
                if reason:
                    faults.append(f"{path.relative_to(root)}:{number}: {target}: {reason}")
    return faults, links


def main():
    faults, links = check(ROOT)
    for line in faults:
        print(line)
    if faults:
        sys.exit(1)
    print(f"{links} links are valid")


if __name__ == "__main__":
    main()
