# The image of scheduler, workers and driver.
#
#   docker build -t daskflow:0.1.0 .
#   docker build -t daskflow:0.1.0-cuda --build-arg TORCH_INDEX= .
#   docker build -t daskflow:0.1.0-jupyter --build-arg PACKAGES=jupyterlab .
#
# BASE is any Debian 12: its Python is the 3.11 that constraints.txt is for. TORCH_INDEX has torch without CUDA; where it is
# empty, torch brings CUDA's libraries, and the node its driver. The extra `cuda` is in none of them: dask-cuda allows another
# version of dask than the other images get, and a worker that has one GPU needs none of it.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
ARG EXTRAS=all
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG PACKAGES=""
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/daskflow
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY daskflow daskflow
RUN /opt/daskflow/bin/pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} ".[${EXTRAS}]" ${PACKAGES}

FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp daskflow
COPY --from=build /opt/daskflow /opt/daskflow
ENV PATH=/opt/daskflow/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_TRIM_THRESHOLD_=67108864 \
    MALLOC_MMAP_THRESHOLD_=33554432 \
    MALLOC_ARENA_MAX=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /tmp
CMD ["daskflow", "--help"]
