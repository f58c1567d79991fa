FROM python:3.11-slim

WORKDIR /app
ENV PYTHONUNBUFFERED=1 KALSHI_HOME=/data DAGSTER_HOME=/dagster

COPY pyproject.toml constraints.txt README.md ./
COPY kalshi_platform kalshi_platform
COPY kalshi_simulator kalshi_simulator
COPY api api
COPY benchmarks benchmarks
RUN pip install --no-cache-dir --constraint constraints.txt .
COPY dagster.yaml /dagster/dagster.yaml
COPY docker/entrypoint.sh /entrypoint.sh

RUN useradd --create-home platform && mkdir -p /data && chown -R platform /data /dagster
USER platform
ENTRYPOINT ["/entrypoint.sh"]
CMD ["kalshi-platform", "--help"]
