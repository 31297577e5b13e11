"""Dagster resources: thin, inert, configured. `interfaces` says what assets may ask for; adapters are beside it.

Adapters are wired in `definitions` only. No I/O and no clock at import.
"""
