#!/usr/bin/env python3
"""Counts the instructions of our own parts with Valgrind, and compares them with benches/instructions.json. `make bench-ci` calls it.

Counts do not depend on the load of the machine. They depend on the compiler and on the vector instructions that Valgrind emulates, so that
they are compared only if those of the baseline are the same. A count that differs by more than 2 % is a failure: find the reason, and store
the new counts with --update if the change is wanted.

usage: instructions.py [--update] [--package scaled-jpeg]
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BASELINE = HERE / "instructions.json"
TOLERANCE = 0.02

#: The works of the benchmark `instructions` of each package.
WORKS = {
    "scaled-jpeg": ["full", "half", "progressive-eighth"],
    "latentflow": ["resize", "normalize", "coverage", "parquet"],
}


def output(*words):
    return subprocess.run([str(word) for word in words], cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True).stdout


def program(package):
    """Builds the benchmark of a package, and returns its path."""
    built = output("cargo", "bench", "--locked", "--no-run", "-p", package, "--bench", "instructions", "--message-format", "json")
    messages = [json.loads(line) for line in built.splitlines()]
    found = [each["executable"] for each in messages if each.get("target", {}).get("name") == "instructions" and each.get("executable")]
    return found[0]


def count(executable, work):
    """The number of instructions of the function `measured`, and of all that it calls."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "counts")
        words = ["valgrind", "--tool=callgrind", "--toggle-collect=*measured*", f"--callgrind-out-file={file}", executable, work]
        subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return int(re.search(r"^(?:summary|totals): (\d+)", file.read_text(), re.MULTILINE)[1])


def environment():
    """The facts that counts depend on."""
    flags = pathlib.Path("/proc/cpuinfo").read_text() if pathlib.Path("/proc/cpuinfo").exists() else ""
    return {"rustc": output("rustc", "--version").strip(), "valgrind": output("valgrind", "--version").strip(), "avx2": " avx2 " in flags}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", choices=WORKS, help="count the works of this package only")
    parser.add_argument("--update", action="store_true", help="store the counts as the baseline")
    options = parser.parse_args()
    stored, here = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}, environment()
    is_comparable = stored.get("environment") == here
    if not is_comparable and not options.update:
        print(f"the counts are not compared: the baseline was stored with {stored.get('environment')}, this is {here}")
    counts, failed = dict(stored.get("counts", {})), []
    for package, works in WORKS.items():
        if options.package not in (None, package):
            continue
        executable = program(package)
        for work in works:
            name = f"{package}/{work}"
            found, before = count(executable, work), stored.get("counts", {}).get(name)
            change = found / before - 1 if before else None
            print(f"{name:<40}{found:>14,}" + (f"{100 * change:>+9.2f} %" if before else ""), flush=True)
            if is_comparable and (change is None or abs(change) > TOLERANCE):
                failed.append(name)
            counts[name] = found
    if options.update:
        BASELINE.write_text(json.dumps({"environment": here, "counts": counts}, indent=2) + "\n")
    elif failed:
        sys.exit(f"more than {100 * TOLERANCE:.0f} % from the baseline: {', '.join(failed)}")


main()
