#!/usr/bin/env python3
"""A preprocessor of mdBook: links to files of the repository outside of docs/ become text, because the book does not contain these files.

Links to README.md become links to the index of its folder, which is the name of such a page in the book.
"""

import json
import posixpath
import re
import sys

LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def linked_within(content, page):
    """The text of a page whose links stay in the book; fenced blocks stay as they are."""

    def replaced(link):
        text, target = link.groups()
        if re.match(r"[a-z][a-z0-9+.-]*:|#", target):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target.partition("#")[0]))
        if path.startswith("../"):
            return text
        target = re.sub(r"README\.md(?=#|$)", "index.md", target)
        return f"[{text}]({target})"

    parts = re.split(r"(^```.*?^```$)", content, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(replaced, part) for part in parts)


def convert(value):
    """Converts the chapters in the JSON of a book, at any depth."""
    if isinstance(value, list):
        for item in value:
            convert(item)
    elif isinstance(value, dict):
        if isinstance(value.get("content"), str) and isinstance(value.get("path"), str):
            value["content"] = linked_within(value["content"], value["path"])
        for item in value.values():
            convert(item)


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    _, book = json.load(sys.stdin)
    convert(book)
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
