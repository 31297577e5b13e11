"""Spark on this machine: `spark-submit` as a child process that ends when we end, however we end.

`spark_submit` makes the command line, `spark_process` runs it under `process_guard`; `jvm_options` and `class_archive`
shorten the JVM's start, `s3a_conf` and `metastore` configure it. No dagster: step launcher, `cdi` and `make` use it.
"""
