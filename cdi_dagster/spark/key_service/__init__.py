"""The Data Key Service as the record engine uses it: data keys by mutual TLS, cached and counted, never on disk.

`client` is what the engine sees, `http` one request and what its answer means, `config` how the job is told about it.
"""
