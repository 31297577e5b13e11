"""The Data Key Service as the record engine uses it: data keys by mutual TLS, cached and counted, never on disk.

`client` is what the engine uses, `http` sends one request and reads its response, `tls` loads certificates, `config`
holds the job's settings.
"""
