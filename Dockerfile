# Lever-Plus: `docker run --rm -v "$PWD/out:/workspace" lever-plus` runs the pipeline on the embedded
# data into ./out (which user 10001 must be able to write). CPU by default; for CUDA:
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 -t lever-plus .
FROM python:3.11.14-slim-bookworm AS build

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# The locked dependencies first: a change of the source does not install them again.
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN mkdir -p src/lever_plus && touch src/lever_plus/__init__.py \
    && pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
       '.[pipeline,tracking,plots,study,openai,postgres,dashboard]'
COPY src ./src
RUN pip install --no-cache-dir --no-deps --force-reinstall .

FROM python:3.11.14-slim-bookworm AS run

ARG GIT_COMMIT=unknown
LABEL org.opencontainers.image.title="lever-plus" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
# git is for DVC; Debian's versions move, so none is pinned beside the pinned base.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git tini \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
WORKDIR /opt/lever-plus
COPY . .
# Named volumes take over the owner of what they are mounted on.
# DVC looks the user's name up.
RUN groupadd --gid 10001 lever \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /home/lever lever \
    && mkdir -p /workspace /mlartifacts \
    && chown 10001:10001 /workspace /mlartifacts
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/lever \
    GIT_COMMIT=${GIT_COMMIT} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DVC_NO_ANALYTICS=1 \
    DVC_SITE_CACHE_DIR=/home/lever/dvc \
    MPLCONFIGDIR=/home/lever/matplotlib \
    HF_HUB_OFFLINE=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MALLOC_MMAP_THRESHOLD_=1073741824 \
    MALLOC_TRIM_THRESHOLD_=1073741824
USER 10001:10001
WORKDIR /workspace
HEALTHCHECK --interval=60s --timeout=10s --start-period=30s \
    CMD ["lever-plus", "params", "check"]
ENTRYPOINT ["tini", "-s", "--", "/opt/lever-plus/docker/enter.sh"]
CMD ["sh", "-c", "dvc repro && lever-plus results"]
