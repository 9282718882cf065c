#!/bin/sh
# Downloads readers of Parquet (the Python packages pyarrow, pandas, polars and duckdb) into .runtime/parquet-readers, for
# the tests of the types in outputs.
set -eu

cd "$(dirname "$0")/.."
folder=.runtime/parquet-readers
[ -d "$folder" ] && exit 0

mkdir -p .runtime
work=$(mktemp -d .runtime/fetch.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m pip install --quiet --disable-pip-version-check --only-binary=:all: --target "$work/site" \
    "pyarrow>=20,<27" "pandas>=2.2,<4" "polars>=1.30,<3" "duckdb>=1.2,<3"
mv "$work/site" "$folder"
echo "the readers of Parquet are in $folder"
