"""One storage day without dagster, for the Dagster assets and `cdi` alike.

What it holds (`day_volumes`), what a run reads (`pinning`), and that only one run of it writes (`ingestion_lease`).
"""
