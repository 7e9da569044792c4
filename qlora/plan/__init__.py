"""What a training run will need: memory and time, before anything is downloaded."""

from qlora.plan.devices import Device, named_device, this_machine
from qlora.plan.known import KNOWN
from qlora.plan.plan import Plan, make_plan
from qlora.plan.report import render
from qlora.plan.settings import Settings, Work
from qlora.plan.shapes import Shapes

__all__ = [
    "KNOWN",
    "Device",
    "Plan",
    "Settings",
    "Shapes",
    "Work",
    "make_plan",
    "named_device",
    "render",
    "this_machine",
]
