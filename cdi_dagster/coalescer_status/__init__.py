"""The state of the coalescer for a storage day: the sources that the gate can use.

`sources` makes the one that the setting names: the marker of our own coalescer, AWS Batch, or a quiet listing. They
only read (what a quiet listing and AWS Batch showed is kept below the published root). No dagster.
"""
