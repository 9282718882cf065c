#!/bin/sh
# Runs a Prometheus with this configuration on 127.0.0.1, next to a `latentflow run ... --metrics 127.0.0.1:9464`, until
# Ctrl-C. Another port: run_local.sh 9091. The collected data is deleted at the end.
set -eu

cd "$(dirname "$0")"
port=${1:-9090}
command -v prometheus >/dev/null || {
    echo "prometheus is not on the PATH: see https://prometheus.io/download" >&2
    exit 1
}

data=$(mktemp -d)
server=
stop() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" || true; }
    rm -rf "$data"
}
trap stop EXIT
trap 'exit 0' HUP INT TERM

prometheus --config.file=prometheus.yml --storage.tsdb.path="$data" --web.listen-address="127.0.0.1:$port" \
    --log.level=warn &
server=$!
echo "http://127.0.0.1:$port/targets and http://127.0.0.1:$port/alerts; after a few minutes: deploy/check.py http://127.0.0.1:$port"
wait "$server"
