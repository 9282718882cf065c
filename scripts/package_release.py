#!/usr/bin/env python3
"""Packages what scripts/release.sh has built: checks it, and writes the tarball, the SBOMs and the checksums.

    scripts/package_release.py WHEEL PROGRAM_WHEEL FEATURES FOLDER

WHEEL is the Python package. PROGRAM_WHEEL contains the program. A file that needs a later glibc than that of manylinux_2_28, a
library that not every system has, or a wheel above its maximum size ends the script with an error.
"""

import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

ROOT = Path(__file__).resolve().parent.parent
MAX_WHEEL_BYTES = 25 << 20
# The latest versions of symbols in manylinux_2_28, and the libraries that it permits and that are needed here.
MAX_VERSIONS = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11), "GCC": (8, 0, 0)}
LIBRARIES = {
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
}
COMPLETIONS = {"bash": "latentflow.bash", "zsh": "_latentflow", "fish": "latentflow.fish"}
# What the README needs: its pages, the quick start and the first pipeline.
EXAMPLES = ["docs", "models/photo-ae", "pipelines/photos.toml", "pipelines/quickstart.toml"]


def check_elf(name, data):
    """Ends the script if a program or a library needs more than a system with glibc 2.28 has. Returns its glibc version."""
    elf = ELFFile(io.BytesIO(data))
    needed = {tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")}
    if needed - LIBRARIES:
        sys.exit(f"{name} needs {', '.join(sorted(needed - LIBRARIES))}, which not every system has")
    latest = (0,)
    for section in elf.iter_sections():
        if not isinstance(section, GNUVerNeedSection):
            continue
        for library, symbols in section.iter_versions():
            for symbol in symbols:
                family, _, text = symbol.name.partition("_")
                if not re.fullmatch(r"[\d.]+", text):
                    sys.exit(f"{name} needs {symbol.name} of {library.name}, whose version is not a number")
                version = tuple(int(part) for part in text.split("."))
                if version > MAX_VERSIONS.get(family, (0,)):
                    sys.exit(f"{name} needs {symbol.name} of {library.name}, which manylinux_2_28 does not have")
                if family == "GLIBC":
                    latest = max(latest, version)
    return ".".join(str(part) for part in latest)


def wheel_member(wheel, pattern):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(pattern, name)]
        if len(names) != 1:
            sys.exit(f"{wheel}: expected one file that matches {pattern}, found {names}")
        return archive.read(names[0])


def linked_crates(*arguments):
    return subprocess.run([ROOT / "scripts/linked_crates.py", *arguments], check=True, stdout=subprocess.PIPE).stdout


def checked_sbom(text):
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode())
    if fault:
        sys.exit(f"the SBOM does not match the schema of CycloneDX: {fault}")
    return text


def tarball_files(program, features, work):
    """The files of the tarball, by their path in it: content and mode."""
    path = work / "latentflow"
    path.write_bytes(program)
    path.chmod(0o755)
    run = lambda *arguments: subprocess.run([path, *arguments], check=True, stdout=subprocess.PIPE).stdout
    files = {"latentflow": (program, 0o755)}
    for library in (ROOT / ".runtime/onnxruntime").glob("libonnxruntime.so.*"):
        files[library.name] = (library.read_bytes(), 0o644)
    for shell, name in COMPLETIONS.items():
        files[f"completions/{name}"] = (run("completions", shell), 0o644)
    run("man", work / "man1")
    texts = {f"man/man1/{page.name}": page for page in (work / "man1").iterdir()}
    texts |= {name: ROOT / name for name in ("README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE")}
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        texts[f"licenses/onnxruntime/{name}"] = ROOT / ".runtime/onnxruntime" / name
    for example in EXAMPLES:
        found = ROOT / example
        paths = [found] if found.is_file() else [path for path in found.rglob("*") if path.is_file()]
        texts |= {str(path.relative_to(ROOT)): path for path in paths}
    files |= {name: (path.read_bytes(), 0o644) for name, path in texts.items()}
    files["licenses/crates.txt"] = (linked_crates("licenses", "latentflow", "--features", features), 0o644)
    return files


def write_tarball(target, folder, files, time):
    """Writes the same bytes for the same files: sorted, owned by root, with the time of the commit."""
    with target.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, time) as packed, tarfile.open(mode="w", fileobj=packed) as archive:
        for name, (data, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode, entry.mtime, entry.uname, entry.gname = len(data), mode, time, "root", "root"
            archive.addfile(entry, io.BytesIO(data))


def main():
    wheel, program_wheel, features, folder = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    if not wheel.name.startswith(f"latentflow-{version}-cp311-abi3-manylinux_2_28_x86_64"):
        sys.exit(f"{wheel.name} is not a wheel of version {version} for manylinux_2_28; python/Cargo.toml has the version of wheels")
    if wheel.stat().st_size > MAX_WHEEL_BYTES:
        sys.exit(f"{wheel.name} has {wheel.stat().st_size} bytes, more than the maximum of {MAX_WHEEL_BYTES}")

    base = f"latentflow-{version}-x86_64-linux"
    program = wheel_member(program_wheel, r"latentflow-[^/]+\.data/scripts/latentflow")
    files = tarball_files(program, features, program_wheel.parent)
    module = wheel_member(wheel, r"latentflow/_latentflow\.abi3\.so")
    elves = {f"{wheel.name}: native module": module}
    elves |= {f"{base}: {name}": data for name, (data, _) in files.items() if data.startswith(b"\x7fELF")}
    for name, data in elves.items():
        print(f"{name}: {len(data) / 1e6:.1f} MB, needs glibc {check_elf(name, data)}")

    checked_sbom(wheel_member(wheel, r"latentflow-[^/]+\.dist-info/sboms/latentflow-python\.cdx\.json"))
    sbom = checked_sbom(linked_crates("sbom", "latentflow", "--features", features, "--with-onnxruntime"))
    files["sbom.cdx.json"] = (sbom, 0o644)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{base}.cdx.json").write_bytes(sbom)
    (folder / wheel.name).write_bytes(wheel.read_bytes())
    write_tarball(folder / f"{base}.tar.gz", base, files, int(os.environ["SOURCE_DATE_EPOCH"]))

    paths = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
    (folder / "SHA256SUMS").write_text("".join(lines))
    for path in paths:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
