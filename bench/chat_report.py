"""The report of `lite-bench chat` as a table and as plots.

Contract: reads the report that `bench.chat` made, measures nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.report import new_figure


def table(report: dict[str, Any]) -> None:
    """Print one row for each measure and one column for each engine."""
    from rich.console import Console
    from rich.table import Table

    engines = report["engines"]
    grid = Table("", *engines, box=None)
    for name in _measures(engines):
        grid.add_row(name, *(_cell(figures.get(name)) for figures in engines.values()))
    for name in ("load_seconds", "peak_rss_gb"):
        grid.add_row(name, *(f"{figures[name]:.2f}" for figures in engines.values()))
    grid.add_row("threads", *(str(f["engine"].get("threads")) for f in engines.values()))
    console = Console()
    console.print(grid)
    memory = report["read_gb_per_second"]
    console.print(
        f"Memory is read at {memory['mean']:.1f} ± {memory['deviation']:.1f} GB/s by "
        f"{memory['threads']} threads; {report['repetitions']} repetitions; "
        f"{report['machine']['cpu']}, load {report['load_average']}."
    )


def plot(report: dict[str, Any], path: Path) -> None:
    """Speeds, first tokens and growth, where matplotlib is installed."""
    figure = new_figure(11, 3.4)
    if figure is None:
        return
    speed, first, growth = figure.subplots(1, 3)
    for offset, (engine, figures) in enumerate(report["engines"].items()):
        speeds = {k: v for k, v in figures.items() if k.startswith(("pp", "tg"))}
        at = [i + 0.8 * offset / len(report["engines"]) for i in range(len(speeds))]
        width = 0.75 / len(report["engines"])
        rates = [v["tokens_per_second"] for v in speeds.values()]
        means, errors = [r["mean"] for r in rates], [r["deviation"] for r in rates]
        speed.bar(at, means, width, yerr=errors, label=engine)
        if len(speeds) > len(speed.get_xticklabels()) or not offset:
            speed.set_xticks(range(len(speeds)), list(speeds), fontsize=8)
        _line(first, figures, "ttft ")
        _line(growth, figures, "depth ")
    speed.set_yscale("log")
    for axes, title in (
        (speed, "tokens/s"),
        (first, "seconds to the first token of turn N"),
        (growth, "seconds a token after N others"),
    ):
        axes.set_title(title, fontsize=9)
    figure.suptitle(f"{report['shape'] or 'bundles'} on {report['machine']['cpu']}", fontsize=10)
    figure.legend(*speed.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)


def _line(axes: Any, figures: dict[str, Any], prefix: str) -> None:
    names = [name for name in figures if name.startswith(prefix)]
    spreads = [figures[name]["seconds"] for name in names]
    axes.errorbar(
        [int(name.removeprefix(prefix)) for name in names],
        [s["mean"] for s in spreads],
        yerr=[s["deviation"] for s in spreads],
        marker="o",
        markersize=3,
    )


def _measures(engines: dict[str, Any]) -> list[str]:
    """Names of all measures, in the order of the engine that has most of them."""
    names: dict[str, None] = {}
    for figures in sorted(engines.values(), key=len, reverse=True):
        names |= dict.fromkeys(k for k, v in figures.items() if isinstance(v, dict))
    return [name for name in names if name != "engine"]


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    if "seconds" in figure:
        s = figure["seconds"]
        return f"{s['mean']:.4f} ± {s['deviation']:.4f} s"
    rate = figure["tokens_per_second"]
    cell = f"{rate['mean']:.1f} ± {rate['deviation']:.1f} t/s"
    if "share" in figure:
        cell += f", {figure['gb_per_second']:.1f} GB/s ({figure['share']:.0%})"
    return cell
