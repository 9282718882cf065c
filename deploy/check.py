#!/usr/bin/env python3
"""Checks that the dashboard and the alerts use metrics that exist, and that the job has as many pods as shards.

    deploy/check.py                         names in the dashboard and the alerts, against src/metrics
    deploy/check.py http://127.0.0.1:9090   every query of the dashboard, against a Prometheus that scrapes a latentflow

The exit code is 1 if a name is unknown, or a query fails or has no data. Panels about HTTP, watched folders and TLS are skipped
and listed if no HTTP source has received requests, no folder is watched, or no listener has TLS.
"""

import json
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent
DASHBOARD = DEPLOY / "grafana/dashboard.json"
ALERTS = DEPLOY / "prometheus/alerts.yml"
METRICS = DEPLOY.parent / "src/metrics"
SHARDS = DEPLOY / "kubernetes/shards.yaml"

# Metrics of every process, from the client library.
PROCESS = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
}
# Metrics of HTTP sources only.
HTTP = re.compile(r"latentflow_(http|journal)_")
# Metrics of listeners with TLS only.
CREDENTIAL = re.compile(r"latentflow_(certificate|credential)_")
# Metrics of watched folders only.
WATCH = re.compile(r"latentflow_watch_")
# The values of Grafana's variables: all jobs and instances, and durations for a scrape interval of 15 seconds.
VARIABLES = {"$job": ".+", "$instance": ".+", "$__rate_interval": "1m", "$__interval": "15s", "$__range": "5m"}
RANGE_SECONDS = 300
STEP_SECONDS = 15


def known_names():
    """Names that src/metrics registers, without the suffixes of histograms."""
    text = "\n".join(file.read_text() for file in sorted(METRICS.glob("*.rs")))
    literals = re.findall(r'"([a-z][a-z0-9_]*)"', text)
    training = re.findall(r'gauge\(\s*"([a-z_]+)"', (METRICS / "training.rs").read_text())
    return PROCESS | {f"latentflow_{name}" for name in literals} | {f"latentflow_training_{name}" for name in training}


def names_in(expression):
    """Names of metrics in an expression: words with one of the two prefixes, without the suffixes of histograms."""
    found = re.findall(r"\b(?:latentflow|process)_[a-z0-9_]+", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def unknown_names():
    known = known_names()
    dashboard = {name for panel in panels() for expression in panel[2] for name in names_in(expression)}
    expressions = re.findall(r"^ +expr: (.*(?:\n {10,}.*)*)", ALERTS.read_text(), re.MULTILINE)
    alerts = names_in("\n".join(expressions))
    # Descriptions also name metrics.
    told = names_in(ALERTS.read_text())
    if not (dashboard and expressions and alerts):
        return ["the dashboard or the alerts have no expressions"]
    return sorted((dashboard | told) - known)


def dashboard():
    return json.loads(DASHBOARD.read_text())


def panels():
    """Row, title and expressions of each panel with a query."""
    row, found = "", []
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        expressions = [target["expr"] for target in panel.get("targets", [])]
        if expressions:
            found.append((row, panel["title"], expressions))
    return found


def faults_of_layout():
    """Panels with the same ID, overlapping panels, and panels beyond the page edge."""
    faults, numbers, taken = [], set(), {}
    for panel in dashboard()["panels"]:
        place, title = panel["gridPos"], panel["title"]
        if panel["id"] in numbers:
            faults.append(f"panel {title}: its ID is a duplicate")
        numbers.add(panel["id"])
        if place["x"] + place["w"] > 24:
            faults.append(f"panel {title}: wider than the page")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if taken.setdefault((x, y), title) != title:
                    faults.append(f"panel {title}: overlaps {taken[x, y]}")
                    return faults
    return faults


def faults_of_shards():
    """Numbers of shards that differ: in the arguments of the job, the number of its pods, and the comment on the output."""
    text = SHARDS.read_text()
    numbers = [re.search(pattern, text, re.MULTILINE) for pattern in (
        r"^  completions: (\d+)$",
        r"^ +args: .*--shard, \$\(JOB_COMPLETION_INDEX\)/(\d+),",
        r"# shard-0-of-(\d+) to shard-",
    )]
    if not all(numbers):
        return [f"{SHARDS.name}: a number of shards was not found"]
    found = [int(number[1]) for number in numbers]
    return [f"{SHARDS.name}: the numbers of shards differ: {found}"] if len(set(found)) > 1 else []


class Prometheus:
    def __init__(self, url):
        self.url = url.rstrip("/")

    def get(self, path, **parameters):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error", str(error))) from error

    def series(self, expression, end):
        """The number of series of the expression that have a numeric value in the last minutes."""
        for variable, value in VARIABLES.items():
            expression = re.sub(re.escape(variable) + r"\b", value, expression)
        data = self.get("query_range", query=expression, start=end - RANGE_SECONDS, end=end, step=STEP_SECONDS)
        return sum(any(value != "NaN" for _, value in series["values"]) for series in data["result"])

    def label_values(self, query):
        """The values of a variable of the dashboard."""
        metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        return self.get(f"label/{label}/values", **{"match[]": metric.replace("$job", ".+")})


def check_queries(prometheus):
    end, failed, asked, skipped = time.time(), 0, 0, 0
    if not prometheus.series("latentflow_build_info", end):
        print(f"{prometheus.url} has no metrics of latentflow")
        return 1
    has_http = prometheus.series('{__name__=~"latentflow_http_.+"}', end) > 0
    has_credentials = prometheus.series('{__name__=~"latentflow_certificate_.+"}', end) > 0
    has_watch = prometheus.series('{__name__=~"latentflow_watch_.+"}', end) > 0
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query" and not prometheus.label_values(variable["definition"]):
            print(f"no data    variable {variable['name']}")
            failed += 1
    for row, title, expressions in panels():
        for expression in expressions:
            if WATCH.search(expression) and not has_watch:
                print(f"skipped    {row}: {title} (no folder is watched)")
                skipped += 1
                continue
            if CREDENTIAL.search(expression) and not has_credentials:
                print(f"skipped    {row}: {title} (no listener has TLS)")
                skipped += 1
                continue
            if HTTP.search(expression) and not has_http:
                print(f"skipped    {row}: {title} (no requests over HTTP)")
                skipped += 1
                continue
            asked += 1
            try:
                found = prometheus.series(expression, end)
            except ValueError as error:
                print(f"failed     {row}: {title}: {error}\n           {expression}")
                failed += 1
                continue
            if not found:
                print(f"no data    {row}: {title}\n           {expression}")
                failed += 1
    print(f"{asked} queries of the dashboard: {asked - failed} with data, {failed} without, {skipped} skipped")
    return 1 if failed else 0


def main():
    faults = [f"no such metric: {name}" for name in unknown_names()] + faults_of_layout() + faults_of_shards()
    print("\n".join(faults) or "dashboard and alerts use metrics that exist, and each shard has a pod")
    if faults:
        return 1
    return check_queries(Prometheus(sys.argv[1])) if len(sys.argv) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
