# lite-serve without torch: docker build -t lite-serve . ; docs/serving.md has the commands.
FROM python:3.12-slim AS build
WORKDIR /source
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY lite lite
# pip installs the runtime only; the other packages are needed to train and to export.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir '.[cpu,serve]'

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /cache lite
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MMGPT_LITE_CACHE=/cache/features \
    MMGPT_LITE_DATA=/cache/data
USER 10001
WORKDIR /cache
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
# The bundle is mounted read-only at /bundle; without it, add nothing and the demo model is served.
ENTRYPOINT ["lite-serve", "--host", "0.0.0.0", "--port", "8080"]
