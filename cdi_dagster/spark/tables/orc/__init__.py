"""Writes ORC files from Python values: rows of flat columns, compressed with ISA-L.

Apache ORC specification v1 (https://orc.apache.org/specification/ORCv1/). `messages` is the wire format of protocol
buffers, `encodings` the streams of each type, `writer` a file. Knows nothing of records or tables; docs/adr/0012.
"""
