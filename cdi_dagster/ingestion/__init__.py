"""Working on one storage day without dagster, for the Dagster assets and `cdi`.

What the day holds (`day_volumes`), what a run reads (`pinning`), and that one run at a time writes (`ingestion_lease`).
"""
