"""What a publication is, and nobody else's business: its mark, how it is published, how it is read.

A publication is the daily records of one collection and storage day, with the rejects, the report and the pinned input
that its mark (`_SUCCESS`) names. Imports `core` and `storage` only; ships to the cluster.
"""
