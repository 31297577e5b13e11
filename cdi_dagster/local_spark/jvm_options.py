"""JVM options that make a local Spark start faster: most JVMs live for seconds, mostly spent on starting.

Half of the start is loading and verifying some ten thousand Spark classes. Java can keep them ready in an archive
(class data sharing): `class_archive` makes it once per environment, and it is used here if it exists. A JVM of another
release, or with other jars first, ignores it. Clusters start with EMR's options.
"""

import sys
from pathlib import Path

# The optimising compiler and a parallel collector do not pay off within seconds.
_SHORT_LIVED = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
_OPTIONS = [
    # No warning for an archive that cannot be used or a class that cannot be archived.
    "-Xlog:cds=off",
    "-Xlog:cds+dynamic=off",
]


def class_archive_path() -> Path:
    """Return the path of this Python environment's class archive, whether it exists or not."""
    return Path(sys.prefix) / "share" / "cdi_dagster" / "spark-classes.jsa"


def quick_start_options(*, computes: bool = False) -> list[str]:
    """Return the options for `spark.driver.extraJavaOptions`.

    Args:
        computes: whether the JVM works for minutes: without its optimising compiler AES, which Spark encrypts its
            shuffles with, is plain Java.
    """
    archive = class_archive_path()
    options = _OPTIONS if computes else [*_SHORT_LIVED, *_OPTIONS]
    return [*options, f'"-XX:SharedArchiveFile={archive}"'] if archive.is_file() else options


def archive_making_options(archive: Path) -> list[str]:
    """Return the options for a JVM that writes an archive when it ends."""
    return [*_SHORT_LIVED, *_OPTIONS, f'"-XX:ArchiveClassesAtExit={archive}"']
