"""Runs a Spark job in which the first attempt of one task waits for the second: speculation_job.py MASTER PHOTOS OUT FLAG"""

import os
import pathlib
import sys
import time

from conftest import PHOTOS, ROOT
from pyspark import TaskContext
from pyspark.sql import SparkSession

from latentflow.spark import accumulator, transform


def main():
    os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable)
    master, photos, out, flag = sys.argv[1:]
    builder = SparkSession.builder.master(master)
    for key, value in {
        "driver.host": "127.0.0.1",
        "driver.bindAddress": "127.0.0.1",
        "ui.enabled": "false",
        "executor.memory": "512m",
        "executorEnv.PYTHONPATH": os.environ["PYTHONPATH"],
        "local.dir": f"{out}.scratch",
        "sql.files.maxPartitionBytes": "16k",
        "sql.files.openCostInBytes": "4k",
        "speculation": "true",
        "speculation.interval": "100ms",
        "speculation.quantile": "0.3",
    }.items():
        builder = builder.config(f"spark.{key}", value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")

    def wait_for_second_attempt(batches):
        context = TaskContext.get()
        if context.partitionId() == 3 and context.attemptNumber() > 0:
            pathlib.Path(flag).touch()
        while context.partitionId() == 3 and not pathlib.Path(flag).exists():
            time.sleep(0.05)
        yield from batches

    images = spark.read.format("binaryFile").load(photos).select("path", "content")
    images = images.mapInArrow(wait_for_second_attempt, images.schema)
    counts = accumulator(spark)
    transform(images, PHOTOS, base=ROOT, counts=counts).write.parquet(out)
    print(sum(counts.value.values()))
    spark.stop()


if __name__ == "__main__":
    main()
