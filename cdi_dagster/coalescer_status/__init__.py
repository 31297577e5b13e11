"""Whether the coalescer is done with a storage day: the sources that can stand behind the gate.

`sources` turns the setting into one of them: the marker of our own coalescer, AWS Batch, or a listing that has been
quiet. They only read (the quiet listing keeps what it saw below the published root). No dagster.
"""
