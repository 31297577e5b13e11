"""Table sets: the Hive tables and views published of a collection, and the replacement of a partition.

They are those of a `core.table_definition`. `transforms` makes the columns, `statements` the SQL text, `metastore` the
tables and views, `partition` replaces one partition. Used by `cdi_dagster.spark.tables.job` only.
"""
