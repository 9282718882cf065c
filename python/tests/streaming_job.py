"""A Structured Streaming job of Spark, which a test kills: streaming_job.py PHOTOS OUT CHECKPOINT forever|available"""

import os
import sys

from conftest import PHOTOS, ROOT
from pyspark.sql import SparkSession

from latentflow.spark import transform

os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable)


def main():
    photos, out, checkpoint, end = sys.argv[1:]
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.local.dir", f"{checkpoint}.scratch").config("spark.sql.warehouse.dir", f"{checkpoint}.warehouse")
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    schema = "path string, modificationTime timestamp, length long, content binary"
    images = spark.readStream.format("binaryFile").schema(schema).option("maxFilesPerTrigger", 40).load(photos)
    latents = transform(images, PHOTOS, base=ROOT)
    writer = latents.writeStream.format("parquet").option("path", out).option("checkpointLocation", checkpoint)
    if end == "available":
        writer = writer.trigger(availableNow=True)
    writer.start().awaitTermination()


if __name__ == "__main__":
    main()
