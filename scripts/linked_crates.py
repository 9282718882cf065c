#!/usr/bin/env python3
"""Lists the crates that are linked into an artifact of a release, as an SBOM or with the texts of their licenses.

    scripts/linked_crates.py sbom latentflow --features object-store --with-onnxruntime   CycloneDX 1.6 in JSON
    scripts/linked_crates.py licenses latentflow-python --features object-store           license texts, as plain text

Build scripts, procedural macros, tests, and dependencies of other platforms are not linked, so they are not listed. The output
depends only on the checkout: SOURCE_DATE_EPOCH is the time of the SBOM.
"""

import argparse
import datetime
import functools
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
# A line of `cargo tree`: depth, name, version. A repeated subtree is printed once and then marked with an asterisk.
TREE_LINE = re.compile(r"(\d+)(\S+) v(\S+)")
LICENSE_FILE = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
ONNX_RUNTIME_PIN = re.compile(r"^onnxruntime==([\d.]+)", re.MULTILINE)


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(package, features):
    """The linked crates as a map from (name, version) to the crates that each depends on; the package is the first one."""
    options = ["--features", features] if features else []
    tree = cargo(
        "tree", "--locked", "--package", package, "--target", TARGET, "--edges", "normal,no-proc-macro",
        "--prefix", "depth", "--format", "{p}", *options,
    )
    crates, path = {}, []
    for line in tree.splitlines():
        found = TREE_LINE.match(line)
        if not found:
            sys.exit(f"unexpected line of `cargo tree`: {line}")
        depth, crate = int(found[1]), (found[2], found[3])
        crates.setdefault(crate, set())
        del path[depth:]
        if path:
            crates[path[-1]].add(crate)
        path.append(crate)
    return crates


@functools.cache
def metadata():
    """The manifests of all packages for the platform, by name and version."""
    packages = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET))["packages"]
    return {(package["name"], package["version"]): package for package in packages}


def checksums():
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in packages}


def spdx(expression):
    """An old form of license expressions separates alternatives by a slash."""
    return re.sub(r"\s*/\s*", " OR ", expression)


def component(crate, manifest, checksum):
    name, version = crate
    purl = f"pkg:cargo/{name}@{version}"
    fields = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if manifest["description"]:
        fields["description"] = " ".join(manifest["description"].split())
    if checksum:
        fields["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if manifest["license"]:
        fields["licenses"] = [{"expression": spdx(manifest["license"])}]
    if manifest["repository"]:
        fields["externalReferences"] = [{"type": "vcs", "url": manifest["repository"]}]
    return fields


def onnx_runtime():
    """The library of ONNX Runtime, which is loaded at run time: the version that runtime-requirements.txt pins."""
    version = ONNX_RUNTIME_PIN.search((ROOT / "runtime-requirements.txt").read_text())[1]
    purl = f"pkg:pypi/onnxruntime@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": "onnxruntime",
        "version": version,
        "purl": purl,
        "description": "The shared library of ONNX Runtime, loaded at run time, from the Python wheel",
        "licenses": [{"expression": "MIT"}],
    }


def sbom(package, features, with_onnx_runtime):
    crates, manifests, hashes = linked(package, features), metadata(), checksums()
    components = {crate: component(crate, manifests[crate], hashes[crate]) for crate in sorted(crates)}
    root = next(iter(crates))
    application = components.pop(root) | {"type": "application"}
    depends = {f"pkg:cargo/{name}@{version}": [f"pkg:cargo/{n}@{v}" for n, v in sorted(on)] for (name, version), on in crates.items()}
    listed = list(components.values())
    if with_onnx_runtime:
        listed.append(onnx_runtime())
        depends[listed[-1]["bom-ref"]] = []
        depends[application["bom-ref"]].append(listed[-1]["bom-ref"])
    time = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", 0)), datetime.timezone.utc)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": time.isoformat(), "component": application},
        "components": listed,
        "dependencies": [{"ref": ref, "dependsOn": on} for ref, on in sorted(depends.items())],
    }
    # The identity of the document follows from its content, so that a repeated build gives the same bytes.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    return document | {"serialNumber": f"urn:uuid:{serial}"}


def license_texts(package, features):
    """The crates with their licenses, and then each text once with the crates that it is from."""
    manifests, texts, lines = metadata(), {}, []
    for crate in sorted(linked(package, features)):
        manifest = manifests[crate]
        name = " ".join(crate)
        if manifest["source"] is None:
            continue
        folder = Path(manifest["manifest_path"]).parent
        files = sorted(path for path in folder.iterdir() if path.is_file() and LICENSE_FILE.match(path.name))
        for path in files:
            text = path.read_text(errors="replace").replace("\r\n", "\n").strip()
            texts.setdefault(text, []).append(f"{name} ({path.name})")
        authors = ", ".join(manifest["authors"]) or "not stated"
        note = "" if files else f"; no license file in the package; authors: {authors}; {manifest['repository'] or ''}"
        lines.append(f"{name}: {spdx(manifest['license'] or 'see its text')}{note}")
    parts = [f"{package} is linked with these crates.\n\n" + "\n".join(lines)]
    parts += ["From " + ", ".join(sources) + ":\n\n" + text for text, sources in texts.items()]
    return f"\n\n{'-' * 80}\n\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Lists the crates that are linked into an artifact.")
    parser.add_argument("output", choices=["sbom", "licenses"])
    parser.add_argument("package")
    parser.add_argument("--features", default="")
    parser.add_argument("--with-onnxruntime", action="store_true", help="the artifact contains the library of ONNX Runtime")
    options = parser.parse_args()
    if options.output == "sbom":
        print(json.dumps(sbom(options.package, options.features, options.with_onnxruntime), indent=1))
    else:
        print(license_texts(options.package, options.features), end="")


if __name__ == "__main__":
    main()
