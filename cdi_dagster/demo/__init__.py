"""Development tools: a writer of sample data as K2HB writes it, and a local key service.

Never used in production: they stand in for K2HB and the key service on a laptop.
"""
