"""A Structured Streaming job of Spark that does not end, which a test kills: streaming_job.py PHOTOS OUT CHECKPOINT"""

import os
import sys

from conftest import PHOTOS, ROOT
from pyspark.sql import SparkSession

from latentflow.spark import transform


def start(spark, photos, out, checkpoint, **trigger):
    """Starts the query. `trigger` are the arguments of its trigger; without them, it waits for new files."""
    schema = "path string, modificationTime timestamp, length long, content binary"
    images = spark.readStream.format("binaryFile").schema(schema).option("maxFilesPerTrigger", 60).load(photos)
    latents = transform(images, PHOTOS, base=ROOT)
    writer = latents.writeStream.format("parquet").option("path", out).option("checkpointLocation", checkpoint)
    return (writer.trigger(**trigger) if trigger else writer).start()


def main():
    os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable)
    photos, out, checkpoint = sys.argv[1:]
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.local.dir", f"{checkpoint}.scratch").config("spark.sql.warehouse.dir", f"{checkpoint}.warehouse")
    start(builder.getOrCreate(), photos, out, checkpoint).awaitTermination()


if __name__ == "__main__":
    main()
