#!/bin/sh
# Downloads ONNX Runtime's shared library into .runtime/onnxruntime, from the wheel that runtime-requirements.txt pins by hash.
# Needs only python3 and pip. Does nothing if the library already exists.
set -eu

cd "$(dirname "$0")/.."
requirements=runtime-requirements.txt
folder=.runtime/onnxruntime
version=$(sed -n 's/^onnxruntime==\([0-9.]*\).*/\1/p' "$requirements")

case "$(uname -s)-$(uname -m)" in
Linux-x86_64) platform=manylinux_2_28_x86_64 library=libonnxruntime.so.$version ;;
Linux-aarch64 | Linux-arm64) platform=manylinux_2_28_aarch64 library=libonnxruntime.so.$version ;;
Darwin-arm64) platform=macosx_14_0_arm64 library=libonnxruntime.$version.dylib ;;
*)
    echo "no ONNX Runtime is pinned for $(uname -s) on $(uname -m): install it and set ORT_DYLIB_PATH to its library" >&2
    exit 1
    ;;
esac

[ -f "$folder/$library" ] && exit 0

mkdir -p "$folder"
work=$(mktemp -d .runtime/fetch.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# The Python version of the wheel does not matter: only the library in it is used.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --implementation cp --python-version 312 --abi cp312 --platform "$platform" \
    --dest "$work" --requirement "$requirements"
python3 -m zipfile -e "$work"/onnxruntime-*.whl "$work/wheel"

# The library is renamed last: if it exists, the other files exist.
mv "$work/wheel/onnxruntime/LICENSE" "$work/wheel/onnxruntime/ThirdPartyNotices.txt" "$folder/"
mv "$work/wheel/onnxruntime/capi/$library" "$folder/$library"
for other in "$folder"/libonnxruntime.*; do
    [ "$other" = "$folder/$library" ] || rm -f "$other"
done
echo "ONNX Runtime $version is in $folder"
