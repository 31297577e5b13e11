"""Runs on the cluster: the Spark jobs and everything they need. No dagster.

Ships together with `core` and `storage`; `reporting` is the only module that knows Dagster Pipes.
"""
