"""The record engine: from a stored envelope to a canonical record, exact on every byte."""
