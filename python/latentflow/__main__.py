"""The command line: `latentflow`, or `python -m latentflow`."""

import signal
import sys

from . import _latentflow


def main() -> None:
    """Runs the command line and exits with its exit code."""
    # Python's handler would turn Ctrl-C into an exception, but the program drains the run and exits with code 4.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_latentflow.command(["latentflow", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
