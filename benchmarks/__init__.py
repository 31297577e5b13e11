"""The benchmark of the Spark job `ingest_daily`: how fast it is beside a plain chain of steps, and beside no Spark.

`make bench` runs it (`python -m benchmarks`); docs/performance.md explains it and holds its figures. A development
tool: nothing of the package imports it, and it ships with nothing.
"""
