#!/bin/sh
# Builds the native module of the Python package, and tests the package: test-python.sh [FEATURES]
# The tests of Spark are skipped without Java.
set -eu

cd "$(dirname "$0")/.."
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "the Python package needs Python 3.11 or later: its tests are skipped"
    exit 0
fi
environment=.runtime/python
requirements=python/tests/requirements.txt
if command -v java >/dev/null; then requirements="$requirements python/tests/requirements-spark.txt"; fi
if ! cat $requirements | cmp -s - $environment/installed; then
    python3 -m venv --clear $environment
    for file in $requirements; do
        $environment/bin/python -m pip install --quiet --disable-pip-version-check -r "$file"
    done
    cat $requirements >$environment/installed
fi

cargo build --locked -p latentflow-python --features "${1:-object-store}"
cp "${CARGO_TARGET_DIR:-target}/debug/lib_latentflow.so" python/latentflow/_latentflow.abi3.so
cd python
../$environment/bin/python -m mypy
PYTHONPATH=$PWD ../$environment/bin/python -m pytest -q -rs tests
