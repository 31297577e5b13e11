"""One folder as Hadoop sees it: the data files in it, the folders in it, and their removal.

Spark writes table data through Hadoop's file systems, so it is listed and removed through them; objects that we write
ourselves go through `cdi_dagster.storage`.
"""

from typing import Any

from pyspark.sql import SparkSession


class HadoopFolder:
    """A folder on whatever file system its path names.

    Args:
        spark: the session whose configuration is used.
        path: as Spark takes it.
    """

    def __init__(self, spark: SparkSession, path: str) -> None:
        # PySpark has no public way to Hadoop's file systems; these two attributes have been there since Spark 1.
        java: Any = spark.sparkContext._jvm
        self._new_path = java.org.apache.hadoop.fs.Path
        self._path = self._new_path(path)
        self._files = self._path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())

    def data_files(self) -> dict[str, int]:
        """Return the size in bytes of each data file, by name, without those that Spark and Hive skip (`_`, `.`)."""
        return {
            status.getPath().getName(): int(status.getLen())
            for status in self._statuses()
            if status.isFile() and not status.getPath().getName().startswith(("_", "."))
        }

    def folders(self) -> list[str]:
        """Return the names of the folders in it."""
        return [status.getPath().getName() for status in self._statuses() if status.isDirectory()]

    def delete(self, name: str) -> None:
        """Delete one folder in it with its content."""
        self._files.delete(self._new_path(self._path, name), True)

    def _statuses(self) -> list[Any]:
        return list(self._files.listStatus(self._path)) if self._files.exists(self._path) else []
