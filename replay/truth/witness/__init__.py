"""Holds the models against the kernel's own source: same seeded streams, compared call by call."""
