"""Writes the pages of `docs/reference/` that repeat the code: `make reference`.

Contract: `pages()` gives each generated page as text, and depends on nothing but the code; a test
compares them with the files. Help is what the commands print on a terminal of 80 columns.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import click
from click.testing import CliRunner
from pydantic import BaseModel

from bench.commands import bench
from export.commands import export
from lite import demo
from lite.commands import cache, chat, serve
from lite.server.settings import Settings
from qlora.commands import train
from qlora.families.models import MODELS
from qlora.recipes.schema import Recipe

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
RESULTS = ROOT / "bench" / "results"
COMMANDS = {
    "lite-chat": chat.command,
    "lite-chat cache": cache.command,
    "lite-serve": serve.command,
    "qlora-train": train.command,
    "lite-export": export.command,
    "lite-bench": bench.command,
}
# What a model is called, and the measurement of its shape.
MEASURED = {
    "mmgpt-9b": ("Multimodal-GPT 9B", "chat-9b-short-cpu.json"),
    "mplug-owl-7b": ("mPLUG-Owl 7B", "chat-mplug-owl-7b-cpu.json"),
    "llava-1.5-7b": ("LLaVA-1.5 7B", "chat-llava-1.5-7b-cpu.json"),
    "idefics-9b": ("IDEFICS 9B", "chat-idefics-9b-cpu.json"),
    "llama-3.2-11b-vision": (
        "Llama-3.2-Vision 11B",
        "chat-llama-3.2-11b-vision-int4-cpu.json",
    ),
}
TABLE = ("<!-- models: written by `make reference` -->", "<!-- end of models -->")
# What each limit bounds, where it stands in the code, and how to show it.
LIMITS = (
    ("Pictures", "size of a file", "lite.image.loading:MAX_BYTES", "bytes"),
    ("Pictures", "pixels", "lite.image.loading:MAX_PIXELS", "number"),
    ("Pictures", "scans of a progressive JPEG", "lite.image.loading:MAX_SCANS", "number"),
    ("Pictures", "scans times pixels", "lite.image.loading:MAX_SCANNED_PIXELS", "number"),
    ("Pictures", "formats", "lite.image.loading:FORMATS", "list"),
    ("Pictures", "formats where Pillow reads them", "lite.image.loading:BRANDS", "list"),
    (
        "Bundles",
        "size from which a hash is remembered",
        "lite.bundle.bundle:ALWAYS_HASHED",
        "bytes",
    ),
    (
        "Chat",
        "longest answer, unless told otherwise",
        "lite.chat.chat:DEFAULT_MAX_TOKENS",
        "number",
    ),
    ("Chat", "image features kept in memory", "lite.runtime.vision:MEMORY_BYTES", "bytes"),
    ("Chat", "image features kept on disk", "lite.runtime.vision:DISK_BYTES", "bytes"),
    (
        "Server",
        "messages of a request, whatever the setting",
        "lite.server.protocol:MAX_MESSAGES",
        "number",
    ),
    ("Server", "parts of a message", "lite.server.protocol:MAX_PARTS", "number"),
    ("Server", "stop texts of a request", "lite.server.protocol:MAX_STOPS", "number"),
    ("Server", "length of a stop text", "lite.server.protocol:MAX_STOP_LENGTH", "number"),
    ("Server", "size of a fetched image", "lite.server.fetcher:MAX_BYTES", "bytes"),
    ("Server", "seconds to fetch an image", "lite.server.fetcher:SECONDS", "number"),
    ("Server", "seconds without a byte of a body", "lite.server.connection:GAP_SECONDS", "number"),
    (
        "Server",
        "seconds until a client takes what it is sent",
        "lite.server.connection:SEND_SECONDS",
        "number",
    ),
    ("Export", "mean KL divergence from fp32", "export.verify:KL_LIMITS", "table"),
    ("Export", "KL divergence of a second turn", "export.verify:SECOND_TURN_KL", "number"),
)
NOTE = "<!-- Written by `make reference` from the code; do not edit. -->\n"


def pages() -> dict[Path, str]:
    """The text of each generated page, by its file."""
    return {
        REFERENCE / "commands.md": commands_page(),
        REFERENCE / "recipe.md": recipe_page(),
        REFERENCE / "limits.md": limits_page(),
        ROOT / "README.md": with_models_table((ROOT / "README.md").read_text(encoding="utf-8")),
    }


def commands_page() -> str:
    """The help of all commands and of each benchmark."""
    parts = [NOTE, "# Commands\n\nWhat each command prints with `--help`.\n"]
    for name, command in COMMANDS.items():
        parts.append(f"## {name}\n\n{help_of(name, command)}")
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name)
            for benchmark in command.list_commands(context):
                part = command.get_command(context, benchmark)
                assert part is not None, benchmark
                called = f"{name} {benchmark}"
                parts.append(f"### {called}\n\n{help_of(called, part)}")
    return "\n".join(parts)


def help_of(name: str, command: click.Command) -> str:
    """`--help` as a block of text."""
    done = CliRunner().invoke(
        command, ["--help"], prog_name=name, terminal_width=80, max_content_width=80
    )
    if done.exit_code:
        raise RuntimeError(f"{name} --help: {done.output}")
    lines = [line.rstrip() for line in done.output.strip().splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def recipe_page() -> str:
    """Every key of a recipe with its type, default and meaning."""
    parts = [
        NOTE,
        "# Recipe\n\nThe keys of a recipe, by section. On the command line a value is set as "
        "`section.key=value`.\n",
    ]
    for name, section in sections(Recipe, ""):
        title = f"## {name}" if name else "## Top of the file"
        parts.append(f"{title}\n\n{keys(section)}")
    return "\n".join(parts)


def sections(model: type[BaseModel], name: str) -> list[tuple[str, type[BaseModel]]]:
    """A section and those inside of it, each with its dotted name."""
    found = [(name, model)]
    for key, field in model.model_fields.items():
        for inner in (field.annotation, *get_args(field.annotation)):
            if inspect.isclass(inner) and issubclass(inner, BaseModel):
                found += sections(inner, f"{name}.{key}".strip("."))
    return found


def keys(section: type[BaseModel]) -> str:
    """A table of the keys that hold values."""
    meanings = attributes(section)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    properties = section.model_json_schema()["properties"]
    for key, field in section.model_fields.items():
        if any(
            inspect.isclass(inner) and issubclass(inner, BaseModel)
            for inner in (field.annotation, *get_args(field.annotation))
        ):
            continue
        default = "(required)" if field.is_required() else f"`{shown(field.get_default())}`"
        cells = (f"`{key}`", kind(properties[key]), default, meanings.get(key, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def attributes(section: type[BaseModel]) -> dict[str, str]:
    """The meaning of each key, from the docstring; keys that are explained together share it."""
    text = inspect.getdoc(section) or ""
    meanings: dict[str, str] = {}
    for names, meaning in re.findall(
        r"^    ([a-z_, ]+): (.*(?:\n(?!    [a-z_, ]+: |\S|\n).*)*)", text, re.MULTILINE
    ):
        for name in names.split(", "):
            meanings[name] = " ".join(meaning.split())
    return meanings


def kind(schema: dict[str, Any]) -> str:
    """A type in words, with its bounds."""
    if "anyOf" in schema:
        kinds = [kind(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(kinds)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        inner = kind(schema.get("items", {}))
        return f"list of {inner}"
    signs = {
        "minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<",
    }  # fmt: skip
    bounds = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return ", ".join([schema.get("type", "value"), *bounds])


def shown(value: object) -> str:
    """A default as it is written in YAML."""
    constants = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return constants[value]
    return str(value)


def limits_page() -> str:
    """The constants that bound what is taken, with their values."""
    parts = [NOTE, "# Limits in numbers\n"]
    for group in dict.fromkeys(group for group, *_ in LIMITS):
        rows = [f"## {group}\n", "| what | limit |", "|---|---|"]
        rows += [
            f"| {what} | {limit(place, unit)} |"
            for one, what, place, unit in LIMITS
            if one == group
        ]
        parts.append("\n".join(rows) + "\n")
    parts.append("The server's settings, each an option of `lite-serve`:\n")
    rows = ["| setting | default |", "|---|---|"]
    for field in fields(Settings):
        rows.append(f"| `{field.name}` | `{field.default}` |")
    return "\n".join(parts) + "\n" + "\n".join(rows) + "\n"


def limit(place: str, unit: str) -> str:
    """The value of `module:NAME` in words."""
    module, _, name = place.partition(":")
    value = getattr(import_module(module), name)
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    if unit == "list":
        return ", ".join(value)
    if unit == "table":
        return ", ".join(f"{key} {one:g}" for key, one in value.items())
    return f"{value:,}"


def with_models_table(readme: str) -> str:
    """README with its table of models as the measurements have it."""
    start, end = TABLE
    before, _, rest = readme.partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError("README.md has no marks of its table of models")
    return f"{before}{start}\n{models_table()}{end}{after}"


def models_table() -> str:
    """Sizes, memory, speed and terms of the models, from `bench/results/`."""
    rows = [
        "| model | parameters | int8, int4 bundle | memory, int4 | first token about "
        "a new image | of the next turn | decoding, int4 | licence of the weights |",
        "|---|---|---|---|---|---|---|---|",
        demo_row(),
    ]
    for name, (called, file) in MEASURED.items():
        engines = json.loads((RESULTS / file).read_text(encoding="utf-8"))["engines"]
        int4 = engines["lite int4"]
        sizes = [
            f"{engines[f'lite {precision}']['engine']['bundle_bytes'] / 1e9:.1f}"
            if f"lite {precision}" in engines
            else "-"
            for precision in ("int8", "int4")
        ]
        cells = (
            f"{called}, `{name}`",
            f"{int4['engine']['parameters'] / 1e9:.1f} B",
            f"{', '.join(sizes)} GB",
            f"{int4['peak_rss_gb']:.1f} GB",
            f"{int4['ttft 1']['seconds']['mean']:.1f} s",
            f"{int4['ttft 2']['seconds']['mean']:.2f} s",
            f"{decoding(int4):.1f} tokens/s",
            MODELS[name].licence,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def decoding(engine: dict[str, Any]) -> float:
    """Tokens a second about an image."""
    (name,) = (name for name in engine if name.startswith("tg") and name.endswith(" image"))
    speed: float = engine[name]["tokens_per_second"]["mean"]
    return speed


def demo_row() -> str:
    """The shipped model."""
    startup = json.loads((RESULTS / "demo-startup.json").read_text(encoding="utf-8"))
    served = json.loads((RESULTS / "serve-demo-cpu.json").read_text(encoding="utf-8"))
    second = served["first_byte_seconds"]["turn 2, cached"]["median"]
    size = sum(file.stat().st_size for file in demo.FOLDER.iterdir()) / 1e6
    return (
        f"| demo, drawn scenes only | 22 M | {size:.0f} MB (int8) | | "
        f"{startup['seconds']['lite-chat']['median']:.1f} s with the start of the program | "
        f"{second:.2f} s | | Apache-2.0 |"
    )


def main() -> None:
    """Write the pages."""
    REFERENCE.mkdir(exist_ok=True)
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
