#!/bin/sh
# Downloads Python packages with pip into .runtime/FOLDER, for tests: fetch-python-packages.sh FOLDER PACKAGE...
# Does nothing if the folder already exists.
set -eu

cd "$(dirname "$0")/.."
folder=.runtime/$1
shift
[ -d "$folder" ] && exit 0

mkdir -p .runtime
work=$(mktemp -d .runtime/fetch.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m pip install --quiet --disable-pip-version-check --only-binary=:all: --target "$work/site" "$@"
mv "$work/site" "$folder"
echo "$* are in $folder"
