"""The Spark job `ingest_daily`: pinned objects in, published records and rejects out.

`job` is the program and its steps; `task` is what one Spark task does: `reading` lines, turning them into records
(`spark.records`), `writing` parts. `replay` does the same for the rejects of a published day, without Spark.
"""
