# Both commands of README.md in one image: `make results` by default, `make test` by name.
# Building needs a network; after that neither command does.

# Stage `tools` is what the dev container starts from (.devcontainer/devcontainer.json).
FROM python:3.11-slim AS tools
ARG USER_ID=1000
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid "$USER_ID" bpgo \
    && install --directory --owner bpgo --group bpgo /bpgo
USER bpgo

FROM tools
WORKDIR /bpgo
COPY --chown=bpgo:bpgo . .
# More options for pip, such as the index of the CPU build of torch (README.md).
ARG PIP_OPTIONS=""
RUN make .venv/.dev PIP_OPTIONS="--no-cache-dir $PIP_OPTIONS"
CMD ["make", "results"]
