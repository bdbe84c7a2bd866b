"""The naive model of `hotplug`: the balloon driver with its sysctl set."""

from __future__ import annotations

from naive_allocators import NaiveBalloon
from naive_models import Model

MODEL = Model(
    lambda machine, options: NaiveBalloon(machine, hotplug_unpopulated=True,
                                          **{"auto_online": True} | options),
    ({}, {}, {"auto_online": False}, {"memory_hotplug": False}))
