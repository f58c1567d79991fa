#!/bin/sh
# Without a key of a real exchange, the simulator's is used, once that has made it.
set -eu
credentials="$KALSHI_HOME/simulator/credentials"
if [ -z "${KALSHI_API_KEY_ID:-}" ] && [ -s "$credentials/key_id" ]; then
    KALSHI_API_KEY_ID=$(cat "$credentials/key_id")
    KALSHI_PRIVATE_KEY_PATH="$credentials/private_key.pem"
    KALSHI_REST_URL=$SIMULATOR_REST_URL
    KALSHI_WS_URL=$SIMULATOR_WS_URL
    KALSHI_SIMULATED=1
    export KALSHI_API_KEY_ID KALSHI_PRIVATE_KEY_PATH KALSHI_REST_URL KALSHI_WS_URL KALSHI_SIMULATED
fi
# A code server passes a container's stop on to its runs only with help. All runs are its own:
# before it starts and after it has ended, none is left that Dagster's books could call alive.
if [ "${1:-} ${2:-} ${3:-}" = "dagster api grpc" ]; then
    set -- python -m kalshi_platform.operations.interrupting --close-runs "$@"
fi
exec "$@"
