"""A plan for people: a table of the memory, and sentences on the time.

Contract: shows what is in the plan, and what it assumes; computes nothing.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qlora.plan.memory import ALWAYS, BACKWARD
from qlora.plan.plan import Plan
from qlora.plan.time import BANDWIDTH_SHARE, COMPUTE_SHARE

_BAR = 24


def render(plan: Plan) -> RenderableType:
    """Memory by component with its share of the device, then what the time is made of."""
    return Group(_table(plan), Text("\n".join(_sentences(plan))))


def _table(plan: Plan) -> Table:
    table = Table(title=f"Memory on {plan.device.name}", title_justify="left")
    table.add_column("Part")
    table.add_column("GB", justify="right")
    table.add_column("Needed")
    table.add_column("Share of the peak", no_wrap=True)
    moments = {ALWAYS: "always", BACKWARD: "backward pass"}
    for part in plan.components:
        moment = moments.get(part.phase, "loss")
        table.add_row(part.name, f"{part.bytes / 1e9:.3f}", moment, _bar(part.bytes / plan.peak))
    table.add_section()
    table.add_row("peak", f"{plan.peak / 1e9:.3f}", "", _bar(1.0), style="bold")
    memory = plan.device.memory
    table.add_row(
        "this device has", f"{memory / 1e9:.3f}", "", "fits" if plan.fits else "too small"
    )
    return table


def _sentences(plan: Plan) -> list[str]:
    counts, time, work, device = plan.counts, plan.time, plan.work, plan.device
    lines = [
        f"Parameters: {counts.total:,}, of which {counts.matrices:,} in matrices of the decoder; "
        f"{plan.adapters:,} trained.",
        f"Speed: {time.tokens_per_second:,.0f} tokens/s "
        f"({time.tokens_per_second / time.roofline:.0%} of the limit), "
        f"{duration(time.step)} for an optimizer step.",
    ]
    samples = f"{work.image_samples:,} samples with images and {work.text_samples:,} without"
    if work.known:
        lines.append(f"Time: {duration(time.total)} for {samples}, {time.steps:,.0f} steps.")
    else:
        lines.append(
            f"Time: at most {duration(time.total)} for {samples}, all of data.max_tokens "
            f"({work.image_tokens:.0f}); the data of this recipe are not here."
        )
    source = "as measured now" if device.measured else "by its data sheet"
    lines.append(
        f"Assumed: {COMPUTE_SHARE:.0%} of {device.bf16:.3g} TFLOP/s in bfloat16 "
        f"({device.fp32:.3g} in float32) and {BANDWIDTH_SHARE:.0%} of "
        f"{device.bandwidth:,.0f} GB/s, {source}."
    )
    refusal = plan.refusal()
    return lines if refusal is None else [*lines, refusal]


def _bar(share: float) -> str:
    return "\u2588" * max(1 if share > 0.002 else 0, round(share * _BAR))


def duration(seconds: float) -> str:
    """The two largest units that say something: `3 h 20 min`, `1.4 s`."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
