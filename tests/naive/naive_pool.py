"""The naive model of `pool`: unpopulated-alloc.c."""

from __future__ import annotations

from naive_allocators import NaivePool
from naive_models import Model

MODEL = Model(
    lambda machine, options: NaivePool(machine, **options),
    ({}, {"auto_online": True}, {"bounded": False, "memory_hotplug": False},
     {"section_pages": 128, "fill_pages": 300}, {"extra_memory": False}))
