"""`lite-chat cache`: what is kept on the disk to be fast, and how to be rid of it.

Contract: everything here can be made again, so removing it costs time and nothing else.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import click

from lite.cli import printable
from lite.errors import BadInput
from lite.userdirs import cache_dir

KINDS = {
    "visual": "features of pictures",
    "prepacked": "weights arranged for this processor",
    "verified": "bundles whose files were checked",
    "threads": "measured numbers of threads",
    "notices": "notices that were printed today",
    "bench": "models of the benchmarks",
}
HELP = """
Show what lite-chat and lite-serve keep on the disk to be fast, bound it, or
clear it. All of it is made again when it is needed.

\b
Example: lite-chat cache
         lite-chat cache --limit-mb 500
         lite-chat cache --clear visual
"""


@dataclass(frozen=True)
class Entry:
    """One file or folder that can be removed by itself: `used` is when it was last, in seconds."""

    path: Path
    size: int
    used: float


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--clear",
    "cleared",
    multiple=True,
    metavar="KIND",
    help=f"Remove all of a kind ({', '.join(KINDS)}) or, with all, everything.",
)
@click.option(
    "--limit-mb",
    type=click.IntRange(0),
    metavar="N",
    help="Remove what was not used for longest until N MB are left.",
)
def command(cleared: tuple[str, ...], limit_mb: int | None) -> None:
    kinds = _kinds()
    unknown = [kind for kind in cleared if kind not in (*KINDS, *kinds, "all")]
    if unknown:
        raise BadInput(f"Nothing called {unknown[0]} is kept; give one of {', '.join(KINDS)}, all.")
    entries = {kind: _entries(cache_dir(kind)) for kind in kinds}
    for kind in entries:
        if kind in cleared or "all" in cleared:
            entries[kind] = _remove(entries[kind])
    if limit_mb is not None:
        _bound(entries, limit_mb * 10**6)
    for kind, kept in entries.items():
        size = sum(entry.size for entry in kept)
        about = KINDS.get(kind, "")
        click.echo(f"{kind:<10} {len(kept):>6} {size / 1e6:>10.1f} MB  {about}".rstrip())
    total = sum(entry.size for kept in entries.values() for entry in kept)
    click.echo(printable(f"{'in all':<17} {total / 1e6:>10.1f} MB  in {cache_dir('')}"))


def _kinds() -> list[str]:
    """What is there, the known kinds first."""
    try:
        found = {path.name for path in cache_dir("").iterdir() if path.is_dir()}
    except OSError:
        return []
    return [kind for kind in KINDS if kind in found] + sorted(found - {*KINDS})


def _entries(folder: Path) -> list[Entry]:
    found = []
    for path in sorted(folder.iterdir()):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        stats = [file.stat() for file in files]
        used = max((max(s.st_mtime, s.st_atime) for s in stats), default=0.0)
        found.append(Entry(path, sum(s.st_size for s in stats), used))
    return found


def _bound(entries: dict[str, list[Entry]], limit: int) -> None:
    """Remove the entries that were not used for longest, beyond `limit` bytes in all."""
    newest = sorted(
        (entry for kept in entries.values() for entry in kept), key=lambda e: e.used, reverse=True
    )
    total, gone = 0, set()
    for entry in newest:
        total += entry.size
        if total > limit:
            _remove([entry])
            gone.add(entry.path)
    for kind, kept in entries.items():
        entries[kind] = [entry for entry in kept if entry.path not in gone]


def _remove(entries: list[Entry]) -> list[Entry]:
    """Remove entries; returns those that are still there."""
    for entry in entries:
        try:
            shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink()
        except OSError as error:
            raise BadInput(f"{entry.path} cannot be removed ({error.strerror}).") from None
    return []
