"""The Spark job `ingest_daily`: pinned objects in, published records and rejects out.

`job` is the program and its story; `task` is what one Spark task does: `reading` lines, `records` make of them what is
published, `writing` parts. `replay` does the same for the rejects of a published day, without Spark.
"""
