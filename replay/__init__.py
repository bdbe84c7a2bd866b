"""Trace-replay testbed for the memory allocators behind Xen foreign mappings."""

__version__ = "0.1.0"
