"""What each answer costs, in credits; charged for a 2xx alone."""

# By method and route. A keyed route that is missing here fails when its module is loaded.
COSTS = {
    "POST /trades": 2,
    "GET /candles/{ticker}": 3,
    "GET /quotes/{ticker}": 2,
    "POST /orderbook": 5,
    "POST /deltas": 2,
    "GET /settlements": 1,
    "GET /settlements/{ticker}": 1,
    "GET /markets": 1,
    "GET /markets/{ticker}": 1,
    "GET /events": 1,
    "GET /events/{event_ticker}": 1,
    "GET /series": 1,
    "GET /series/{ticker}": 1,
    "GET /coverage": 0,
    "GET /coverage/{ticker}": 0,
    "GET /account": 0,
}
