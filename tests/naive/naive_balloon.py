"""The naive model of `balloon`: own RAM given up."""

from __future__ import annotations

from naive_allocators import NaiveBalloon
from naive_models import Model

MODEL = Model(
    lambda machine, options: NaiveBalloon(machine, **options),
    ({}, {"auto_online": True}, {"memory_hotplug": False}, {"scrub": False},
     {"max_retry_count": 2, "max_schedule_delay": 3}, {"max_retry_count": 0}))
