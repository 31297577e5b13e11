"""The benchmark of the Spark job `ingest_daily`: its speed compared with a plain chain of steps and with no Spark.

`make bench` runs it (`python -m benchmarks`); docs/performance.md explains it and holds its figures. A development
tool: the package does not import it, and it is not shipped.
"""
