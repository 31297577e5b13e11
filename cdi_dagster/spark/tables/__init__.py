"""Table sets: the Hive tables and views published of a collection, and the replacement of a partition.

`definition` is the configuration (`audit.json` is the one shipped), `transforms` the columns, `statements` the SQL
text, `partition` the replacement of one partition, `views` the views. Used by `cdi_dagster.spark.tables.job` only.
"""
