"""Publications, in this package only: their mark, how they are published, how they are read.

A publication is the daily records (or rows) of one collection and storage day, with the rejects, the report and the
pinned input that its mark (`_SUCCESS`) names. Imports `core` and `storage` only; ships to the cluster.
"""
