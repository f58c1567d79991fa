FROM python:3.11-slim-bookworm

WORKDIR /app
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 \
    HOME=/tmp KALSHI_HOME=/data DAGSTER_HOME=/data/dagster

# What we stand on changes more seldom than our own code: a layer of its own.
COPY constraints.txt pyproject.toml ./
RUN python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        print(*project["dependencies"], sep="\n")' > /tmp/requirements.txt \
    && pip install --constraint constraints.txt --requirement /tmp/requirements.txt

COPY README.md LICENSE dagster.yaml ./
COPY kalshi_platform kalshi_platform
COPY kalshi_simulator kalshi_simulator
COPY api api
COPY benchmarks benchmarks
# Editable: `migrate --dagster` finds dagster.yaml beside the packages.
RUN pip install --no-deps --editable . && python -m compileall -q .

COPY docker/entrypoint.sh /entrypoint.sh
COPY docker/password.sh /password.sh

# The mount points belong to the user, and so does a new volume that is mounted there.
RUN useradd --uid 1000 --home-dir /tmp --shell /usr/sbin/nologin platform \
    && install --directory --owner platform --group platform /data /secrets
USER 1000:1000
ENTRYPOINT ["/entrypoint.sh"]
CMD ["kalshi-platform", "--help"]
