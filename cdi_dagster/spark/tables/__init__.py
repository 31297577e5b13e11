"""Table sets: which Hive tables and views are published of a collection, and how a partition of them is replaced.

`definition` is the configuration (`audit.json` is the one shipped), `transforms` the columns, `statements` the SQL
text, `partition` the replacement of one partition, `views` the views. Used by `cdi_dagster.spark.tables.job` only.
"""
