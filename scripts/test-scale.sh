#!/bin/sh
# Tests that take too long for `make test-python`: all engines of docs/guides/engines.md, and Spark and Ray with killed processes, whose table is
# printed at the end. `make test-python` must have run before. The packages take about 7 GB, most of it for PyTorch.
set -eu

cd "$(dirname "$0")/.."
environment=.runtime/scale
requirements=python/tests/requirements-scale.txt
if ! cmp -s $requirements $environment/installed; then
    python3 -m venv --clear $environment
    $environment/bin/python -m pip install --quiet --disable-pip-version-check -r $requirements
    cp $requirements $environment/installed
fi

cd python
export PYTHONPATH=$PWD LATENTFLOW_SCALE=1
../$environment/bin/python -m pytest -q -rs tests/test_engines.py
../.runtime/python/bin/python -m pytest -q -rs tests/test_spark.py tests/test_ray.py
