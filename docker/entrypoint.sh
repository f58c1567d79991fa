#!/bin/sh
# Without a key of a real exchange, the simulator's is used, once that has made it.
set -eu
credentials="$KALSHI_HOME/simulator/credentials"
if [ -z "${KALSHI_API_KEY_ID:-}" ] && [ -s "$credentials/key_id" ]; then
    KALSHI_API_KEY_ID=$(cat "$credentials/key_id")
    KALSHI_PRIVATE_KEY_PATH="$credentials/private_key.pem"
    KALSHI_REST_URL=http://simulator:8090/trade-api/v2
    KALSHI_WS_URL=ws://simulator:8091/trade-api/ws/v2
    KALSHI_SIMULATED=1
    export KALSHI_API_KEY_ID KALSHI_PRIVATE_KEY_PATH KALSHI_REST_URL KALSHI_WS_URL KALSHI_SIMULATED
fi
# A code server passes a container's stop on to its runs only with help.
if [ "${1:-} ${2:-} ${3:-}" = "dagster api grpc" ]; then
    set -- python -m kalshi_platform.operations.interrupting "$@"
fi
exec "$@"
