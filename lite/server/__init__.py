"""The HTTP server: OpenAI's chat completions and a web page on top of `lite.chat.chat`.

Contract: needs the extra `serve` (starlette, uvicorn, pydantic, prometheus_client); nothing else in
`lite` imports it.
"""
