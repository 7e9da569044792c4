"""What a training run will need, before anything is downloaded: memory and time.

Contract: a pure function of the model's counts, settings, device and amount of data (`memory`,
`time`), and what follows from it: whether it fits, and what would make it fit. 1 GB is 10^9
bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from qlora.plan.counts import Counts
from qlora.plan.devices import Device
from qlora.plan.memory import Component, memory, peak
from qlora.plan.settings import Settings, Workload
from qlora.plan.time import BANDWIDTH_SHARE, COMPUTE_SHARE, Time, time


@dataclass(frozen=True)
class Plan:
    """The plan of a run; made by `make_plan`."""

    counts: Counts
    settings: Settings
    device: Device
    work: Workload
    adapters: int
    components: tuple[Component, ...]
    time: Time

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return peak(self.components)

    @property
    def fits(self) -> bool:
        return self.peak <= self.device.memory

    def remedy(self) -> tuple[str, int] | None:
        """The one setting that makes it fit, and the peak with it, in bytes; None if none does."""
        for key, values in _lighter(self.settings):
            number = bisect_left(values, True, key=lambda value: self._with(key, value).fits)
            if number < len(values):
                return f"{key}={_yaml(values[number])}", self._with(key, values[number]).peak
        return None

    def _with(self, key: str, value: object) -> Plan:
        """The plan with another value of a recipe's setting."""
        lighter = replace(self.settings, **{key.rpartition(".")[2]: value})  # type: ignore[arg-type]
        return make_plan(self.counts, lighter, self.device, self.work)

    def refusal(self) -> str | None:
        """A sentence for the person where the memory does not suffice, or None."""
        if self.fits:
            return None
        remedy = self.remedy()
        advice = (
            f"set {remedy[0]}, with which it takes {gigabytes(remedy[1])}"
            if remedy
            else f"no single setting makes it fit, so take a device with {gigabytes(self.peak)}"
        )
        return (
            f"This training takes {gigabytes(self.peak)} of memory and {self.device.name} has "
            f"{gigabytes(self.device.memory)}; {advice}."
        )

    def to_json(self) -> dict[str, Any]:
        """All figures as plain values; memory in bytes, time in seconds."""
        remedy = None if self.fits else self.remedy()
        return {
            "device": asdict(self.device),
            "settings": asdict(self.settings),
            "parameters": {"total": self.counts.total, "trained": self.adapters},
            "memory": {
                "components": [asdict(component) for component in self.components],
                "peak": self.peak,
                "fits": self.fits,
                "remedy": remedy and {"setting": remedy[0], "peak": remedy[1]},
            },
            "work": asdict(self.work),
            "time": {
                **asdict(self.time),
                "assumed_share_of_compute": COMPUTE_SHARE,
                "assumed_share_of_bandwidth": BANDWIDTH_SHARE,
            },
        }


def make_plan(
    counts: Counts, settings: Settings, device: Device, work: Workload | None = None
) -> Plan:
    """Plan a run.

    Args:
        counts: of the model.
        settings: of the run.
        device: where it is to run.
        work: how much there is to train on; None where the data are not there.

    Raises:
        BadInput: a target of the adapters names no layer.
    """
    adapted = counts.adapted(settings.targets)
    work = work or Workload.example(settings)
    adapters = sum(settings.rank * (rows + columns) for rows, columns in adapted.values())
    adapters += sum(rows for rows, _ in adapted.values()) if settings.dora else 0
    return Plan(
        counts=counts,
        settings=settings,
        device=device,
        work=work,
        adapters=adapters,
        components=memory(counts, settings, adapted, adapters, device.cuda),
        time=time(counts, settings, device, work, adapters),
    )


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lighter(settings: Settings) -> Iterator[tuple[str, Sequence[Any]]]:
    """Settings of which one change needs less memory, the least harmful first.

    Each comes with its values, from the one that needs most to the one that needs least.
    """
    if not settings.checkpointing:
        yield "training.checkpointing", (True,)
    if "8bit" not in settings.optimizer:
        yield "training.optimizer", ("paged_adamw_8bit",)
    if settings.base == "nf4" and not settings.double_quantization:
        yield "model.double_quantization", (True,)
    yield "training.batch", range(settings.batch - 1, 0, -1)
    if settings.base != "nf4":
        yield "model.base", ("nf4",)
    if settings.compute != "bfloat16":
        yield "model.compute", ("bfloat16",)
    yield "data.max_tokens", range((settings.max_tokens - 1) // 64 * 64, 127, -64)
