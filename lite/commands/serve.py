"""`lite-serve`: chat over HTTP, by OpenAI's API and a web page.

Contract: opens the port before the model, so that a mistake shows at once; says on stderr where it
listens; stops gracefully at Ctrl-C and SIGTERM.
"""

from __future__ import annotations

from typing import Any

import click

from lite.cli import device_option, entry_point, say, version_option

HELP = """
Serve a bundle, or without -m the demo model, over HTTP: a web page at /, and
OpenAI's chat completions at /v1/chat/completions, which any OpenAI client can
use.

Ctrl-C takes no more requests, lets running answers finish, and leaves. By
default only this machine can connect; before you change --host, set a key.

Example: lite-serve -m bundle, then open http://127.0.0.1:8080
"""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-m",
    "--model",
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
    "--max-body-mb",
    default=64,
    show_default=True,
    type=click.IntRange(1, 4096),
    help="Size of one request.",
)
@click.option(
    "--allow-image-host",
    "image_hosts",
    multiple=True,
    metavar="HOST",
    help="Fetch images from there, and only there; may be repeated.",
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
@version_option
def command(
    model: str | None,
    host: str,
    port: int,
    device: str,
    threads: int | None,
    max_body_mb: int,
    grace: int,
    **settings: Any,
) -> None:
    from lite import load
    from lite.errors import BadInput

    try:
        from lite.server.app import create_app
        from lite.server.http_server import Server, listen
        from lite.server.settings import Settings
    except ModuleNotFoundError as error:
        raise BadInput(
            f"The server needs the package {error.name}; install the extra 'serve': "
            f"pip install '.[cpu,serve]' in the folder of the source."
        ) from None
    local = host in LOOPBACK
    # A page of another origin can reach a local port under a name of its own, unless the name or a
    # key is checked.
    hosts = LOOPBACK if local and not settings["api_key"] else ()
    with listen(host, port) as socket:
        hashing = lambda name: say(f"Checking {name}...")  # noqa: E731
        opened = load(model, device, threads, hashing=hashing, notice=say)
        app = create_app(opened, Settings(**settings, max_body=max_body_mb << 20, hosts=hosts))
        if not (local or settings["api_key"]):
            say("Anyone who reaches this address can use the model; --api-key asks for a key.")
        name = f"[{host}]" if ":" in host else host
        say(f"Serving on http://{name}:{socket.getsockname()[1]} (Ctrl-C stops)")
        Server(app, grace).run(sockets=[socket])


main = entry_point(command)

if __name__ == "__main__":
    main()
