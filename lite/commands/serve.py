"""`lite-serve`: chat over HTTP, by OpenAI's API and a web page.

Contract: opens the port before the model, so that a mistake shows at once; says on stderr where it
listens; stops gracefully at Ctrl-C and SIGTERM.
"""

from __future__ import annotations

from typing import Any

import click

from lite.cli import device_option, entry_point, say, verify_option, version_option

HELP = """
Serve a bundle, or without -m the demo model, over HTTP: a web page at /, and
OpenAI's chat completions at /v1/chat/completions, which any OpenAI client can
use.

Ctrl-C takes no more requests, lets running answers finish, and leaves. By
default only this machine can connect; another --host needs a key.

Example: lite-serve -m bundle, then open http://127.0.0.1:8080
"""


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-m",
    "--model",
    type=click.Path(),
    metavar="BUNDLE",
    help="Folder that lite-export wrote.  [default: the demo model]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 is any."
)
@click.option(
    "--parallel",
    default=2,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Answers at a time; each has a KV cache of its own.",
)
@click.option(
    "--queue",
    default=16,
    show_default=True,
    type=click.IntRange(0),
    help="Requests that may wait; more are sent away with status 429.",
)
@click.option(
    "--api-key",
    envvar="MMGPT_LITE_API_KEY",
    metavar="KEY",
    help="Clients must send it as a bearer key.  [or MMGPT_LITE_API_KEY]",
)
@click.option(
    "--max-images",
    default=16,
    show_default=True,
    type=click.IntRange(0),
    help="Images in one conversation.",
)
@click.option(
    "--max-messages",
    default=1024,
    show_default=True,
    type=click.IntRange(1, 8192),
    help="Messages in one conversation.",
)
@click.option(
    "--max-body-mb",
    default=64,
    show_default=True,
    type=click.IntRange(1, 4096),
    help="Size of one request.",
)
@click.option(
    "--max-connections",
    default=512,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Connections at a time; beyond them the one that waited longest is closed.",
)
@click.option(
    "--header-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    help="Time for the header of a request to arrive.",
)
@click.option(
    "--body-seconds",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    help="Time for its body.",
)
@click.option(
    "--allow-image-host",
    "image_hosts",
    multiple=True,
    metavar="HOST",
    help="Fetch images from there, and only there; may be repeated.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Answer to this name too, * to any; without a key only local names are answered.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Pages from there may use the server from a browser (CORS); * is any.",
)
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="NAME",
    help="Another name of the model for clients that insist on one; * is any.",
)
@click.option(
    "--isolate",
    is_flag=True,
    help="Keep caches apart by bearer key, so that no client learns what another sent.",
)
@click.option(
    "--allow-anyone",
    is_flag=True,
    help="Listen beyond this machine without a key.",
)
@click.option(
    "--grace",
    default=20,
    show_default=True,
    type=click.IntRange(1, 3600),
    help="Seconds that running answers have to finish at the end.",
)
@device_option
@click.option("--threads", type=int, help="Worker threads.  [default: measured once]")
@verify_option
@version_option
def command(
    model: str | None,
    host: str,
    port: int,
    device: str,
    threads: int | None,
    verify: bool,
    max_body_mb: int,
    hosts: tuple[str, ...],
    allow_anyone: bool,
    grace: int,
    **settings: Any,
) -> None:
    from lite import load
    from lite.errors import BadInput

    try:
        from lite.server.app import create_app
        from lite.server.http_server import Server, listen, printable_name
        from lite.server.settings import LOOPBACK, Settings
    except ModuleNotFoundError as error:
        raise BadInput(
            f"The server needs the package {error.name}; install the extra 'serve': "
            f"pip install '.[cpu,serve]' in the folder of the source."
        ) from None
    local = host in LOOPBACK
    if not (local or settings["api_key"] or allow_anyone):
        raise BadInput(
            f"Anyone who reaches {printable_name(host)} could use the model; give an --api-key, or "
            f"--allow-anyone if that is wanted."
        )
    limits = Settings(
        **settings, max_body=max_body_mb << 20, hosts=_names(hosts, local, settings["api_key"])
    )
    with listen(host, port) as socket:
        hashing = lambda name: say(f"Checking {name}...")  # noqa: E731
        opened = load(model, device, threads, hashing=hashing, notice=say, verify=verify)
        app = create_app(opened, limits)
        name = f"[{host}]" if ":" in host else host
        say(f"Serving on http://{name}:{socket.getsockname()[1]} (Ctrl-C stops)")
        Server(app, grace).run(sockets=[socket])


def _names(hosts: tuple[str, ...], local: bool, api_key: str | None) -> tuple[str, ...]:
    """The names that the server answers to; empty for any."""
    from lite.server.settings import LOOPBACK

    if "*" in hosts or (not hosts and (api_key or not local)):
        return ()
    return (*LOOPBACK, *(host.lower() for host in hosts))


main = entry_point(command)

if __name__ == "__main__":
    main()
