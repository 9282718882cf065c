"""The examples of the pages in docs/guides/, which tests run as they are written there."""

import re

from conftest import ROOT


def examples(page: str, heading: str) -> str:
    """The Python examples below a heading of a page, as one program. Its lines have the numbers that they have in the page."""
    path, program, section, language = ROOT / "docs" / "guides" / page, [], None, None
    for line in path.read_text(encoding="utf-8").splitlines():
        fence = re.fullmatch(r"```(\w*)", line)
        title = re.match(r"#+ (.*)", line)
        if fence:
            language = None if language is not None else fence[1]
        elif title and language is None:
            section = title[1]
        program.append(line if language == "python" and section == heading and not fence else "")
    if not any(program):
        raise ValueError(f"{path} has no Python example below the heading `{heading}`")
    return "\n".join(program)


def run(page: str, heading: str, **names) -> dict:
    """Runs the examples below a heading and returns their variables. `names` are variables that the page assumes."""
    variables = {"__name__": "example", **names}
    exec(compile(examples(page, heading), str(ROOT / "docs" / "guides" / page), "exec"), variables)
    return variables
