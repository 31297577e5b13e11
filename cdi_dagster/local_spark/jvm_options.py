"""The options with which the JVM of a local Spark starts soon: it lives for seconds, and most of them are its start.

Half of that is reading and checking some ten thousand classes of Spark's. Java can keep them ready to use in an archive
(class data sharing); `class_archive` makes it once for an environment, and here it is named where it is there. A JVM of
another release, or with other jars in front, goes without it by itself. Clusters start as EMR has them start.
"""

import sys
from pathlib import Path

_OPTIONS = [
    # The optimising compiler and a collector for many cores do not pay within seconds.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    # An archive that cannot be used, or a class that cannot be archived, is no reason to warn.
    "-Xlog:cds=off",
    "-Xlog:cds+dynamic=off",
]


def class_archive_path() -> Path:
    """Return where this Python environment has its class archive, made or not."""
    return Path(sys.prefix) / "share" / "cdi_dagster" / "spark-classes.jsa"


def quick_start_options() -> list[str]:
    """Return the options for `spark.driver.extraJavaOptions`."""
    archive = class_archive_path()
    return [*_OPTIONS, f'"-XX:SharedArchiveFile={archive}"'] if archive.is_file() else _OPTIONS


def archive_making_options(archive: Path) -> list[str]:
    """Return the same, but for a JVM that writes an archive when it ends."""
    return [*_OPTIONS, f'"-XX:ArchiveClassesAtExit={archive}"']
