#!/bin/sh
# Checks the files of this folder with the available tools, and lists the missing tools. `make deploy-check` runs it.
set -eu

cd "$(dirname "$0")"

has() {
    command -v "$1" >/dev/null && return
    echo "skipped: $1 is not on the PATH"
    return 1
}

python3 check.py

if has promtool; then
    promtool check config prometheus/prometheus.yml
    promtool test rules prometheus/alerts.test.yml
fi

if has systemd-analyze; then
    # Verified with an existing program in place of the one that is not installed.
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    sed 's|/usr/local/bin/latentflow|/bin/true|' systemd/latentflow@.service >"$work/latentflow@.service"
    systemd-analyze verify "$work/latentflow@.service"
    # The threshold is in tenths of the score that systemd prints.
    score=$(systemd-analyze security --no-pager --offline=true --threshold=20 "$work/latentflow@.service") || {
        echo "$score"
        echo "the service is less sandboxed than before" >&2
        exit 1
    }
    echo "$score" | tail -n 1
fi

if python3 -c "import yaml" 2>/dev/null; then
    python3 -c "import sys, yaml; [list(yaml.safe_load_all(open(name))) for name in sys.argv[1:]]" kubernetes/*.yaml
else
    echo "skipped: the Python package yaml is not installed"
fi
