"""Shim for tools that still look for setup.py; the metadata is in pyproject.toml."""

import sys

from setuptools import setup

if not (3, 11) <= sys.version_info < (3, 14):
    sys.exit("cdi_dagster needs Python 3.11 to 3.13, and this is " + ".".join(map(str, sys.version_info[:3])) + ".")
setup()
