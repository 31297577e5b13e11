"""The steps of one day as plain functions: ask the coalescer, pin, run Spark.

The Dagster assets and the `cdi` terminal both call these; no dagster here.
"""
