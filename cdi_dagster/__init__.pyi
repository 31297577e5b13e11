from cdi_dagster.reading import pinned_input, publication, tables

__all__ = ["pinned_input", "publication", "tables"]
