"""An audit on the terminal: tables with a small histogram for each set, and the warnings.

Contract: shows what `qlora.data.audit` found and computes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lite.cli import printable
from qlora.data.audit import Audit
from qlora.data.lengths import BIN_NAMES, SHORT, Lengths, percent

_BARS = " ▁▂▃▄▅▆▇█"


def render(audit: Audit) -> Group:
    """Everything that an audit found, for `rich.console.Console.print`."""
    key = f"words, tokens: 10th percentile / median / 90th; lengths: {', '.join(BIN_NAMES)} words"
    parts: list[RenderableType] = [contents(audit), "", answers(audit), Text(key, "dim"), ""]
    for name, reasons in audit.left_out.items():
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        parts.append(Text(printable(f"Left out of {name}: {counts}.")))
    for name, reasons in audit.repairs.items():
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        parts.append(Text(printable(f"In {name}: {counts}.")))
    for one, title in zip(audit.sets, _names(audit), strict=True):
        if one.context_only:
            told = f": answers marked not to be trained: {one.context_only:,}."
            parts.append(Text.assemble(title, told))
    if audit.mix:
        parts.append(Text(audit.mix))
    parts += [Text(f"Warning: {printable(warning)}", "yellow") for warning in audit.warnings]
    if not audit.warnings:
        parts.append(Text("Nothing here would shorten replies.", "green"))
    return Group(*parts)


def contents(audit: Audit) -> Table:
    """What is in the sets, and in which state."""
    result = _table("records", "seen", "share", "answers", "copies", "images", "broken")
    for one, name in zip(audit.sets, _names(audit), strict=True):
        counts = (one.answers, one.duplicates, one.images, len(one.broken))
        seen = (f"{one.records:,}", f"{one.looked_at:,}", percent(one.share))
        result.add_row(name, *seen, *(f"{count:,}" for count in counts))
    return result


def answers(audit: Audit) -> Table:
    """How long the answers are: of each set, and of the mixture as training would meet them."""
    result = _table("words", "tokens", "1 word", f"< {SHORT}", "lengths")
    for one, name in zip(audit.sets, _names(audit), strict=True):
        result.add_row(name, *_lengths(one.lengths))
    result.add_row(Text("the mixture", "bold"), *_lengths(audit.mixture))
    return result


def bars(histogram: Sequence[float]) -> str:
    """A bar for each share, as high as it is of the largest; what is not zero can be seen."""
    top = max(histogram, default=0.0)
    steps = len(_BARS) - 1
    return "".join(_BARS[max(1, round(steps * share / top)) if share else 0] for share in histogram)


def _table(*headings: str) -> Table:
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    result.add_column("data set", overflow="fold")
    for heading in headings:
        result.add_column(heading, justify="right", no_wrap=True)
    return result


def _names(audit: Audit) -> list[Text]:
    """What to call each set; one that is in two streams has its stream's name behind its own."""
    times = Counter(one.name for one in audit.sets)
    names = [f"{o.name} ({o.kind})" if times[o.name] > 1 else o.name for o in audit.sets]
    return [Text(printable(name)) for name in names]


def _lengths(lengths: Lengths | None) -> list[str]:
    if lengths is None:
        return [""] * 5
    return [
        " / ".join(map(str, lengths.words)),
        " / ".join(map(str, lengths.tokens)),
        percent(lengths.one_word),
        percent(lengths.short),
        bars(lengths.histogram),
    ]
