"""Tests of `latentflow.ray`, on a cluster of one node. They are skipped without Ray."""

import os
import pathlib

import pytest
from conftest import PHOTOS, ROOT, jpeg

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1")
ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

import latentflow  # noqa: E402
from latentflow.ray import Transform  # noqa: E402

PACKAGE = pathlib.Path(latentflow.__file__).parents[1]


def test_actors_keep_the_rejects_of_all_files(tmp_path):
    count = 60
    for index in range(count):
        (tmp_path / f"{index:04}.jpg").write_bytes(jpeg(index) if index % 20 else b"not an image")
    path = os.pathsep.join([str(PACKAGE), str(pathlib.Path(__file__).parent)])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=150 << 20,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    try:
        images = ray.data.read_binary_files(str(tmp_path), include_paths=True, override_num_blocks=8)
        latents = images.map_batches(
            Transform,
            fn_constructor_args=(PHOTOS,),
            fn_constructor_kwargs={"base": str(ROOT)},
            batch_format="pyarrow",
            batch_size=10,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=2),
        )
        rows = latents.take_all()
    finally:
        ray.shutdown()
    names = sorted(pathlib.PurePath(row["source"]).name for row in rows)
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert sum(row["rejected"] is not None for row in rows) == 3
    assert {len(row["latent"]) for row in rows if row["rejected"] is None} == {128}
