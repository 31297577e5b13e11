"""Dagster resources: thin, inert, configured. `interfaces` has what assets use; adapters implement it.

Adapters are wired in `definitions` only. No I/O and no clock at import.
"""
