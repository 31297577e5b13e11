"""The Hive tables and views published of a collection, and the replacement of a partition.

They are those of a `core.table_definition`. `rows_job` writes rows on the workers (`rows_task`, `columns`, `values`,
`showing`, `orc_parts`), `statements` is the SQL text, `metastore` the tables and views, `partition` replaces one
partition; used by `cdi_dagster.spark.tables.job`. `profile` is what a definition makes of a day, without Spark.
"""
