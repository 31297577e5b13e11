"""The Spark job `build_snapshot`: base and daily rows become the snapshot of a Friday. DataFrames only."""
