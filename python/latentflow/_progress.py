"""The progress of long work, on a terminal or in a notebook."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

#: Receives the name of the step, the number of records that it has processed, and the number of all its records.
Callback = Callable[[str, int, int | None], None]


def _bar(name: str, total: int | None) -> Any:
    with warnings.catch_warnings():
        # Without ipywidgets, the bar of a notebook is text.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm(desc=name, total=total, unit=" records", unit_scale=True)


class Progress:
    """A bar for the current step.

    :param shown: whether to show a bar; None: in notebooks and on terminals. Or a function that is called instead.
    """

    def __init__(self, shown: bool | Callback | None):
        self._callback = shown if callable(shown) else None
        is_interactive = "ipykernel" in sys.modules or sys.stderr.isatty()
        self._is_shown = self._callback is None and (is_interactive if shown is None else bool(shown))
        self._name: str | None = None
        self._bar: Any = None

    def show(self, name: str, done: int, total: int | None, note: str = "") -> None:
        """Shows the progress of a step; another name begins another step."""
        if self._callback is not None:
            self._callback(name, done, total)
        if not self._is_shown:
            return
        if name != self._name:
            self.close()
            self._name, self._bar = name, _bar(name, total)
        self._bar.total = total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
