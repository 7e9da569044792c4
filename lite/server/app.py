"""The server as a Starlette application.

Contract: `create_app` is all that a program needs; nothing is global, so several may run in one
process.
"""

from __future__ import annotations

import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from lite import demo
from lite.chat.model import Model
from lite.server.chat_completions import ChatCompletions
from lite.server.errors import Refused
from lite.server.metrics import Metrics
from lite.server.middleware import AccessMiddleware
from lite.server.openapi import document
from lite.server.service import Service
from lite.server.settings import Settings

WEB = Path(__file__).parent / "web"
PATHS = ("/v1/chat/completions", "/v1/models", "/health", "/metrics", "/openapi.json")
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def create_app(model: Model, settings: Settings | None = None) -> Starlette:
    """The application for one model.

    Without other settings it answers to the names of this machine only, for `uvicorn.run` listens
    on 127.0.0.1. `lite.server.http_server.Server` runs it with the limits of connections that are
    uvicorn's to keep.

    Raises:
        BadInput: the bundle is broken.

    Example:
        >>> uvicorn.run(create_app(lite.load("bundle")))
    """
    settings = settings or Settings()
    service = Service(model, settings)
    metrics = Metrics(service.pool)
    folder = model.bundle.folder.resolve()
    is_demo = folder == demo.FOLDER.resolve()
    name = demo.NAME if is_demo else folder.name
    openapi_document = document(name, keyed=settings.api_key is not None)
    card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "mmgpt-lite"}
    card |= {"notice": demo.NOTICE} if is_demo else {}

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "stopping" if service.pool.stopping else "ok"})

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [card]})

    async def one_model(request: Request) -> Response:
        chat.check_model(request.path_params["id"])
        return JSONResponse(card)

    async def prometheus(request: Request) -> Response:
        return Response(metrics.text(), headers={"Content-Type": PROMETHEUS})

    async def openapi(request: Request) -> Response:
        return JSONResponse(openapi_document)

    chat = ChatCompletions(service, metrics, name, model.tokenizer, settings)
    routes = [
        Route("/health", health),
        Route("/metrics", prometheus),
        Route("/openapi.json", openapi),
        Route("/v1/models", models),
        Route("/v1/models/{id:path}", one_model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ]
    middleware = [Middleware(AccessMiddleware, settings=settings, metrics=metrics)]
    if settings.origins:  # outermost: browsers ask for permission without a key
        middleware.insert(
            0,
            Middleware(
                CORSMiddleware,
                allow_origins=settings.origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
            ),
        )
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: _http})
    if WEB.is_dir():  # after all routes, and only if none has the path: else it would hide 405
        app.router.default = StaticFiles(directory=WEB, html=True)
    app.state.service = service
    app.state.settings = settings
    return app


async def _http(request: Request, error: Exception) -> Response:
    """Paths and methods that there are not."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:100]}"
    message = f"{what} is not possible here ({error.detail})."
    if error.status_code == 404:
        message = f"There is no {what} here; there are {', '.join(PATHS)}."
    return Refused(error.status_code, message, headers=dict(error.headers or {})).response()
