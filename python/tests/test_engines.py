"""Runs the examples of docs/guides/engines.md. Those of engines that are not installed are skipped; `make scale` runs all of them."""

import importlib.util
import pathlib
import sys

import latentflow
import pages
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, write_photos

COUNT = 30


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the files that the examples read."""
    for name in ("models", "pipelines"):
        (tmp_path / name).symlink_to(ROOT / name)
    photos = write_photos(tmp_path / "photos", COUNT, 10)
    files = sorted(photos.iterdir())
    table = pa.table({"source": [f"photos/{file.name}" for file in files], "image": [file.read_bytes() for file in files]})
    pq.write_table(table, tmp_path / "photos.parquet", row_group_size=10)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


def expected():
    """The latent of each record by its source; a rejected record has none."""
    pipeline = latentflow.Pipeline("pipelines/photos.toml")
    return latents_of(pipeline.transform(pq.read_table("photos.parquet")))


def latents_of(table):
    rows = pa.table(table).select(["source", "latent", "rejected"]).to_pylist()
    assert all((row["latent"] is None) == (row["rejected"] is not None) for row in rows)
    return {row["source"]: row["latent"] for row in rows}


def check(table):
    latents = latents_of(table)
    assert len(latents) == len(table) == COUNT
    assert latents == expected()


@needs("polars")
def test_polars(folder):
    check(pages.run("engines.md", "Polars")["latents"])
    import polars as pl

    pages.run("engines.md", "Polars, lazily")
    check(pl.read_parquet("latents.parquet"))


@needs("duckdb")
def test_duckdb(folder):
    check(pages.run("engines.md", "DuckDB")["latents"])
    import duckdb

    written = dict(duckdb.sql("select source, latent from 'latents.parquet'").fetchall())
    assert written == {source: latent for source, latent in expected().items() if latent}
    # pyarrow 25 cannot read nulls in arrays that DuckDB has written.
    check(duckdb.sql("from 'all.parquet'").to_arrow_table())


@needs("pandas")
def test_pandas(folder):
    check(pa.Table.from_pandas(pages.run("engines.md", "pandas")["latents"]))


@needs("dask")
def test_dask(folder):
    latents = pages.run("engines.md", "Dask")["latents"]
    assert latents.npartitions >= 1
    check(pa.Table.from_pandas(latents.compute()))


@needs("daft")
def test_daft(folder):
    check(pages.run("engines.md", "Daft")["latents"].to_arrow())


@needs("datasets")
def test_hugging_face_datasets(folder, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    latents = pages.run("engines.md", "Hugging Face datasets")["latents"]
    check(latents.with_format("arrow")[:])
    latents = pages.run("engines.md", "Hugging Face datasets, images")["latents"].with_format("arrow")[:]
    names = [str(pathlib.Path(source).relative_to(folder)) for source in latents["source"].to_pylist()]
    check(latents.set_column(0, "source", [names]))


@needs("torch")
def test_pytorch(folder):
    import torch

    # Spawned workers import the class of the dataset from a module.
    (folder / "example.py").write_text(pages.examples("engines.md", "PyTorch"))
    sys.path.insert(0, str(folder))
    try:
        loader = __import__("example").loader
        batches = list(loader)
    finally:
        sys.path.remove(str(folder))
    read = {source: latent.tolist() for sources, latents in batches for source, latent in zip(sources, latents)}
    assert read == {source: latent for source, latent in expected().items() if latent}
    forked = torch.utils.data.DataLoader(loader.dataset, batch_size=32, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match="start processes with the method `spawn`"):
        list(forked)
