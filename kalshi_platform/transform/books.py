"""What an order book is at an instant, once: the last snapshot, and the deltas since.

The query is text, with a place for its source: it is sent hundreds of times a second and joined to
what each reader wants of it. It holds no values and no parameters but those of the source.

    Order of application is `feed_order`: exchange clocks of two messages may be equal, or turned
    round where a frame came late. A delta counts at an instant T if it follows the snapshot in the
    feed and its own time is at most T. A snapshot is sent a little after the book that it shows, so
    a delta that follows it may be older on the exchange's clock: deltas are looked for from
    CLOCK_SECONDS before it on, and the loader lets no time of a delta lie further off. One that was
    overtaken by a snapshot is part of it: its number on the subscription is the lower one.
    For the same reason the last snapshot by its time need not be the last one told: our own bears
    the time of a delta, and after a lost message or a new connection the exchange's, told later,
    may bear an earlier one.

What is answered inside a gap (see `book_watches`) is the best that is known, and may be wrong.
"""

CLOCK_SECONDS = 60
"""Furthest apart that the times of two messages of one connection can be from their order."""

MOMENTS = (
    "unnest(%(market_tickers)s::text[], %(instants)s::timestamptz[]) AS moment (market_ticker, at)"
)
"""A source for `books_at`: markets and instants as two parameters, arrays of equal length."""

BOOK_COLUMNS = (
    "market_ticker",
    "at",
    "base_at",
    "base_order",
    "base_seq",
    "base_source",
    "connection",
    "sid",
    "last_at",
    "last_order",
    "deltas",
    "lowest_centis",
    "yes_micros",
    "yes_centis",
    "no_micros",
    "no_centis",
)
LEVEL_COLUMNS = ("market_ticker", "at", "side", "price_micros", "size_centis")


def books_at(moments: str = MOMENTS) -> str:
    """SQL for the book of each market at its instant: BOOK_COLUMNS, one row a moment.

    A moment before the market's first snapshot has no row. A book without orders has one, with
    empty arrays.

    Args:
        moments: SQL of a source called `moment` with `market_ticker` (text) and `at` (timestamptz),
            as it stands in FROM. The same market may be there at many instants.

    Returns:
        Of each book:

        - `base_at`, `base_order`, `base_source`: time, feed_order and source of the snapshot it is
          built upon; `connection`, `sid`, `base_seq`: the subscription that it belongs to, and the
          number there of the exchange's snapshot that it goes back to
        - `last_at`, `last_order`: latest time and last feed_order of what was applied, snapshot
          included; `deltas`: how many followed it
        - `lowest_centis`: the smallest size that any level came to; below zero where something was
          lost, null where nothing was ever there
        - `yes_micros`, `yes_centis`, `no_micros`, `no_centis`: prices bid for either side,
          ascending, in terms of that side, and the contracts at each; only levels above zero
    """
    return f"""\
SELECT moment.market_ticker, moment.at, base.at AS base_at, base.feed_order AS base_order,
       base.seq AS base_seq, base.source AS base_source,
       base.feed_order >> 32 AS connection, base.sid,
       greatest(base.at, book.last_at) AS last_at,
       greatest(base.feed_order, book.last_order) AS last_order, book.deltas, book.lowest_centis,
       book.yes_micros, book.yes_centis, book.no_micros, book.no_centis
FROM {moments}
CROSS JOIN LATERAL (
    SELECT at, feed_order, seq, source, sid, yes_micros, yes_centis, no_micros, no_centis
    {last_snapshot("moment.market_ticker", "moment.at")}
) AS base
CROSS JOIN LATERAL (
    SELECT max(level.last_at) AS last_at, max(level.last_order) AS last_order,
           coalesce(sum(level.deltas), 0)::bigint AS deltas,
           min(level.size_centis) AS lowest_centis,
           {_listed("price_micros", "yes", "integer")} AS yes_micros,
           {_listed("size_centis", "yes", "bigint")} AS yes_centis,
           {_listed("price_micros", "no", "integer")} AS no_micros,
           {_listed("size_centis", "no", "bigint")} AS no_centis
    FROM (
        SELECT side, price_micros, sum(centis)::bigint AS size_centis, max(at) AS last_at,
               max(feed_order) AS last_order, count(at) AS deltas
        FROM (
            SELECT 'yes' AS side, price_micros, centis, NULL::timestamptz AS at,
                   NULL::bigint AS feed_order
            FROM unnest(base.yes_micros, base.yes_centis) AS yes (price_micros, centis)
            UNION ALL
            SELECT 'no', price_micros, centis, NULL, NULL
            FROM unnest(base.no_micros, base.no_centis) AS no (price_micros, centis)
            UNION ALL
            SELECT side, price_micros, delta_centis, at, feed_order
            FROM book_deltas
            WHERE market_ticker = moment.market_ticker
              AND at >= base.at - interval '{CLOCK_SECONDS} seconds' AND at <= moment.at
              AND feed_order > base.feed_order
              -- What another subscription told, the snapshot knows nothing of.
              AND feed_order < ((base.feed_order >> 32) + 1) << 32 AND sid = base.sid
              AND (base.seq IS NULL OR seq > base.seq)
        ) AS change
        GROUP BY side, price_micros
    ) AS level
) AS book"""  # noqa: S608  (constants and the caller's own words)


def last_snapshot(market_ticker: str, at: str) -> str:
    """SQL, from FROM on, for the snapshot that a book at an instant is built upon.

    Args:
        market_ticker, at: SQL of the market and of the instant.
    """
    known = f"FROM book_snapshots WHERE market_ticker = {market_ticker} AND at <= {at}"
    return f"""\
{known}
      AND at >= (SELECT at {known} ORDER BY at DESC LIMIT 1) - interval '{CLOCK_SECONDS} seconds'
    ORDER BY feed_order DESC
    LIMIT 1"""


def levels_at(moments: str = MOMENTS) -> str:
    """SQL for the levels of the same books: LEVEL_COLUMNS, one row a price with contracts.

    An empty book has no levels, and so has an unknown one: `books_at` tells them apart.
    """
    return f"""\
SELECT book.market_ticker, book.at, level.side, level.price_micros, level.size_centis
FROM (
{books_at(moments)}
) AS book
CROSS JOIN LATERAL (
    SELECT 'yes' AS side, price_micros, size_centis
    FROM unnest(book.yes_micros, book.yes_centis) AS yes (price_micros, size_centis)
    UNION ALL
    SELECT 'no', price_micros, size_centis
    FROM unnest(book.no_micros, book.no_centis) AS no (price_micros, size_centis)
) AS level"""  # noqa: S608


def levels_that_differ(told: str) -> str:
    """SQL, the inside of a WITH, for what is wrong with snapshots: the one before each, changed by
    the deltas between, ought to make it.

    Args:
        told: name of a relation with `market_ticker`, `at`, `feed_order` and `sid` of snapshots,
            and with `before_at` and `before_order` of the one before each on its subscription.

    Returns:
        Common table expressions, the last two of interest to the caller: `compared`, the rows of
        `told` with both books, and `wrong`, one row a level that differs or fell below zero on the
        way: `market_ticker`, `feed_order`, `side`, `price_micros`, `snapshot_centis`,
        `rebuilt_centis`, `lowest_centis`.
    """
    return f"""\
compared AS (
    SELECT told.*, held.source, held.seq, before.seq AS before_seq,
           held.yes_micros, held.yes_centis, held.no_micros, held.no_centis,
           before.yes_micros AS before_yes_micros, before.yes_centis AS before_yes_centis,
           before.no_micros AS before_no_micros, before.no_centis AS before_no_centis
    FROM {told} AS told
    JOIN book_snapshots AS held USING (market_ticker, at, feed_order)
    JOIN book_snapshots AS before ON before.market_ticker = told.market_ticker
        AND before.at = before_at AND before.feed_order = before_order
), change AS (
    SELECT compared.market_ticker, compared.feed_order, level.side, level.price_micros,
           level.centis, level.told_order
    FROM compared
    CROSS JOIN LATERAL (
        SELECT 'yes' AS side, price_micros, centis, before_order AS told_order
        FROM unnest(before_yes_micros, before_yes_centis) AS yes (price_micros, centis)
        UNION ALL
        SELECT 'no', price_micros, centis, before_order
        FROM unnest(before_no_micros, before_no_centis) AS no (price_micros, centis)
        UNION ALL
        SELECT delta.side, delta.price_micros, delta.delta_centis, delta.feed_order
        FROM book_deltas AS delta
        WHERE delta.market_ticker = compared.market_ticker AND delta.sid = compared.sid
          AND delta.feed_order >> 32 = compared.feed_order >> 32
          AND delta.feed_order > before_order
          AND (before_seq IS NULL OR delta.seq > before_seq)
          -- A snapshot of the exchange holds what is numbered before it, however late that came.
          AND CASE compared.source WHEN 'exchange' THEN delta.seq < compared.seq
                   ELSE delta.feed_order <= compared.feed_order END
          AND delta.at >= before_at - interval '{CLOCK_SECONDS} seconds'
          AND delta.at <= compared.at + interval '{CLOCK_SECONDS} seconds'
    ) AS level
), walked AS (
    SELECT market_ticker, feed_order, side, price_micros, centis,
           sum(centis) OVER (PARTITION BY market_ticker, feed_order, side, price_micros
                             ORDER BY told_order) AS size_centis
    FROM change
), rebuilt AS (
    SELECT market_ticker, feed_order, side, price_micros, sum(centis)::bigint AS size_centis,
           min(size_centis) AS lowest_centis
    FROM walked
    GROUP BY market_ticker, feed_order, side, price_micros
), shown AS (
    SELECT compared.market_ticker, compared.feed_order, level.*
    FROM compared
    CROSS JOIN LATERAL (
        SELECT 'yes' AS side, price_micros, size_centis
        FROM unnest(yes_micros, yes_centis) AS yes (price_micros, size_centis)
        UNION ALL
        SELECT 'no', price_micros, size_centis
        FROM unnest(no_micros, no_centis) AS no (price_micros, size_centis)
    ) AS level
), wrong AS (
    SELECT market_ticker, feed_order, side, price_micros,
           coalesce(shown.size_centis, 0) AS snapshot_centis,
           coalesce(rebuilt.size_centis, 0) AS rebuilt_centis, rebuilt.lowest_centis
    FROM rebuilt
    FULL JOIN shown USING (market_ticker, feed_order, side, price_micros)
    WHERE coalesce(shown.size_centis, 0) <> coalesce(rebuilt.size_centis, 0)
       OR rebuilt.lowest_centis < 0
)"""  # noqa: S608  (constants and the caller's own words)


def _listed(column: str, side: str, kind: str) -> str:
    """SQL for one side's levels as an array, by ascending price."""
    return (
        f"coalesce(array_agg(level.{column} ORDER BY level.price_micros)"
        f" FILTER (WHERE level.side = '{side}' AND level.size_centis > 0), '{{}}'::{kind}[])"
    )
