"""The Hive tables and views published of a collection, and the replacement of a partition.

They are those of a `core.table_definition`. `values`, `columns` and `json_spans` make the rows, `showing` what a table
over managed has of them, `orc` their files, `rows_task` and `rows_job` both on Spark's workers; `statements` is the SQL
text, `metastore` the tables and views, `partition` replaces one partition; used by `cdi_dagster.spark.tables.job` only.
`profile` is what a definition makes of a day, without Spark.
"""
