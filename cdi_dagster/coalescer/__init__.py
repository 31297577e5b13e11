"""Our own coalescer: merges the small raw objects of a storage day, and cannot lose or double a record.

A program that also runs alone (`cdi coalesce`). Imports storage and core only.
"""
