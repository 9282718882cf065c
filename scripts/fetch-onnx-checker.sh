#!/bin/sh
# Downloads the official ONNX checker (the Python package onnx) into .runtime/onnx-checker, for the tests of exported models.
set -eu

cd "$(dirname "$0")/.."
folder=.runtime/onnx-checker
[ -d "$folder" ] && exit 0

mkdir -p .runtime
work=$(mktemp -d .runtime/fetch.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m pip install --quiet --disable-pip-version-check --only-binary=:all: --target "$work/site" "onnx>=1.17,<2"
mv "$work/site" "$folder"
echo "the ONNX checker is in $folder"
