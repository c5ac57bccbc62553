# The one image of all roles: make image. Base, version and revision are arguments; what goes in is .dockerignore's list.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
# The tools that make the wheel stay here; wheels only, so that nothing is compiled.
COPY requirements-build.lock requirements.lock ./
RUN python -m venv tools \
 && tools/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements-build.lock \
 && python -m venv --without-pip /opt/adapter \
 && tools/bin/python -m pip --python /opt/adapter/bin/python install --quiet --no-compile \
      --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY adapter adapter
# Compiled here, since a read-only file system can't keep what Python compiles later; by hash, since layers lose times.
RUN tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
 && tools/bin/python -m pip --python /opt/adapter/bin/python install --quiet --no-compile --no-deps dist/*.whl \
 && /opt/adapter/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/adapter/lib

FROM ${BASE}
# The base's pip has no use in an image that is never changed.
RUN find / -xdev \( -name 'pip' -o -name 'pip[0-9.]*' -o -name 'pip-*' -o -name 'ensurepip' \) \
      \( -path '*/python3*/*' -o -path '*/bin/*' \) -prune -exec rm -rf {} +
COPY --from=build /opt/adapter /opt/adapter
ENV PATH=/opt/adapter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_ARENA_MAX=2
# Two arenas: glibc would give each of librdkafka's threads its own, 6 MiB under load.
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
ENTRYPOINT ["/opt/adapter/bin/adapter"]
CMD ["--help"]

# make image adds version and revision.
LABEL org.opencontainers.image.title="fault-adapter" \
      org.opencontainers.image.description="Gateway between a buyer's Kafka estate and a wholesale supplier's SOAP ticketing API" \
      org.opencontainers.image.licenses="Apache-2.0"
