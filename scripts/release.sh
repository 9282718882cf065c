#!/bin/sh
# Builds the files of a release for Linux x86-64 into target/release-files: the wheel, the tarball with the program, SBOMs and
# checksums. Nothing is uploaded. Both artifacts run with glibc 2.28 or later.
set -eu

cd "$(dirname "$0")/.."
platform=manylinux_2_28
features=object-store
files=target/release-files
work=target/release-work
tools=.runtime/release-tools

if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    echo "releases are built on Linux x86-64, and this machine is $(uname -s) on $(uname -m)" >&2
    exit 1
fi
requirements="scripts/release-requirements.txt scripts/release-check-requirements.txt"
if ! cat $requirements | cmp -s - $tools/installed; then
    python3 -m venv --clear $tools
    # The hashes of the first file are verified, because it is installed alone.
    for file in $requirements; do
        $tools/bin/python -m pip install --quiet --disable-pip-version-check --only-binary=:all: -r "$file"
    done
    cat $requirements >$tools/installed
fi
scripts/fetch-onnxruntime.sh

# Paths of this machine are replaced in the messages of panics, so that the files do not depend on it.
separator=$(printf '\037')
CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/registry$separator--remap-path-prefix=$PWD=/latentflow"
CARGO_ZIGBUILD_CACHE_DIR=$PWD/.runtime/zigbuild
ZIG_GLOBAL_CACHE_DIR=$PWD/.runtime/zig
# maturin calls the Zig of the first `python3` on the PATH.
PATH=$PWD/$tools/bin:$PATH
export PATH CARGO_ENCODED_RUSTFLAGS CARGO_ZIGBUILD_CACHE_DIR ZIG_GLOBAL_CACHE_DIR

# The time of the SBOMs and of the files in the tarball. Not a variable of the whole script: if it changes, Cargo compiles C again.
time=$(git log -1 --format=%ct)
rm -rf $files $work
mkdir -p $work
SOURCE_DATE_EPOCH=$time scripts/linked_crates.py sbom latentflow-python --features $features >$work/latentflow-python.cdx.json
scripts/linked_crates.py licenses latentflow-python --features $features >python/LICENSE-CRATES.txt

# maturin builds both artifacts, so that the dependencies are compiled once, and refuses symbols of a later glibc.
build() {
    maturin build --release --locked --zig --compatibility $platform --features $features "$@"
}
build --manifest-path python/Cargo.toml --out $work/wheel --sbom-include "$PWD/$work/latentflow-python.cdx.json"
build --manifest-path Cargo.toml --bindings bin --out $work/program
SOURCE_DATE_EPOCH=$time python3 scripts/package_release.py $work/wheel/*.whl $work/program/*.whl $features $files
