"""Corporate Data Ingestion (CDI) as a Dagster project. Start reading at `definitions.py`."""
