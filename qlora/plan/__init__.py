"""What a training run will need: memory and time, before anything is downloaded."""

from qlora.plan.counts import Counts
from qlora.plan.devices import Device, named_device, this_machine
from qlora.plan.plan import Plan, make_plan
from qlora.plan.report import render
from qlora.plan.settings import Settings, Workload

__all__ = [
    "Counts",
    "Device",
    "Plan",
    "Settings",
    "Workload",
    "make_plan",
    "named_device",
    "render",
    "this_machine",
]
