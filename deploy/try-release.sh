#!/bin/sh
# Tries the files of a release, target/release-files, in bare Debian roots: deploy/try-release.sh [FOLDER]
# docs/development/releasing.md describes what is tried. Needs root, debootstrap, and a network for Debian's packages and for pip.
set -eu

cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
    echo "skipped: only root can make the roots that the release is tried in"
    exit 0
fi
if ! command -v debootstrap >/dev/null && command -v apt-get >/dev/null; then apt-get install -y debootstrap >/dev/null || true; fi
for tool in debootstrap unshare nsenter chroot mount ip; do
    command -v "$tool" >/dev/null && continue
    echo "skipped: $tool is not on the PATH"
    exit 0
done

# The trial runs in namespaces of its own. All mounts and processes in them end with it, on every path, so that this folder
# contains no mount when it is removed.
work=$(mktemp -d)
trial=
finish() {
    status=$?
    trap - EXIT HUP INT TERM
    if [ -n "$trial" ]; then
        kill "$trial" 2>/dev/null || true
        wait "$trial" || true
    fi
    rm -rf --one-file-system "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM
unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
    python3 -B deploy/try_release.py "${1:-target/release-files}" "$work" &
trial=$!
status=0
wait "$trial" || status=$?
trial=
exit "$status"
