"""One storage day without dagster, run in one way by the Dagster assets and `cdi`.

What it holds (`day_volumes`), what a run reads (`pinning`), that only one run of it writes (`ingestion_lease`), the
Spark steps of it (`steps`), its status row (`status_rows`), and how far it got (`day_progress`).
"""
