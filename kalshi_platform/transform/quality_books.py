"""What must hold for one UTC day of order books, as queries.

In the manner of `quality.py`: every query returns one row, `passed` first, then figures, and at
last `examples`: a JSON list of at most twenty rows.

A day of books is too much to rebuild each hour, so what is looked at is drawn by a hash, the same
whenever it is asked; the figures say how much it was. A day whose partitions have been dropped has
nothing to look at, and passes with zeros.
"""

from datetime import date
from typing import Any

from sqlalchemy import Select

from kalshi_platform.transform.books import books_at, levels_that_differ
from kalshi_platform.transform.quality import Check
from kalshi_platform.transform.questions import EXAMPLES, as_examples, one_row

# Snapshots compared with what the deltas before them make: 2,000 deltas each at most, about.
_SNAPSHOTS = 500
_BOOKS = 500


def books_equal_their_deltas(day: date) -> Select[Any]:
    """Whether each snapshot is the one before it changed by the deltas in between, level by level.

    Only within one watch: between two of them something was lost, and a book begins anew. On the
    way no level may hold fewer contracts than none.
    """
    return one_row(
        f"""\
WITH told AS (
    SELECT market_ticker, sid, feed_order, at,
           lag(feed_order) OVER of_feed AS before_order, lag(at) OVER of_feed AS before_at
    FROM book_snapshots
    WHERE at >= :start - interval '1 hour' AND at < :end
    WINDOW of_feed AS (PARTITION BY market_ticker, feed_order >> 32, sid ORDER BY feed_order)
), drawn AS (
    SELECT * FROM told
    WHERE at >= :start AND before_order IS NOT NULL AND NOT EXISTS (
        SELECT FROM book_watches AS watch
        WHERE watch.market_ticker = told.market_ticker
          AND watch.start_order > before_order AND watch.start_order <= feed_order)
    ORDER BY hashtext(market_ticker || feed_order)
    LIMIT {_SNAPSHOTS}
), {levels_that_differ("drawn")}, example AS (
    SELECT wrong.market_ticker, compared.at, compared.source, wrong.side, wrong.price_micros,
           wrong.snapshot_centis, wrong.rebuilt_centis, wrong.lowest_centis
    FROM wrong JOIN compared USING (market_ticker, feed_order)
    ORDER BY compared.at, wrong.market_ticker, wrong.side, wrong.price_micros
    LIMIT {EXAMPLES}
)
SELECT NOT EXISTS (SELECT FROM wrong) AS passed,
       (SELECT count(*) FROM compared) AS snapshots_compared,
       (SELECT count(DISTINCT (market_ticker, feed_order)) FROM wrong
        WHERE snapshot_centis <> rebuilt_centis) AS snapshots_that_differ,
       (SELECT count(*) FROM wrong WHERE lowest_centis < 0) AS levels_below_zero,
       (SELECT count(*) FROM book_snapshots WHERE at >= :start AND at < :end) AS snapshots,
       {as_examples("example")}""",  # noqa: S608
        day,
        "snapshots_compared",
        "snapshots_that_differ",
        "levels_below_zero",
        "snapshots",
    )


def books_not_crossed(day: date) -> Select[Any]:
    """Whether the best bid is below the best ask in each book as its watch ended, or stands now."""
    moments = f"""(
    SELECT market_ticker,
           least(coalesce(ends_at, 'infinity'), :end, now()) - interval '1 microsecond' AS at
    FROM book_watches
    WHERE starts_at < :end AND coalesce(ends_at, 'infinity') > greatest(starts_at, :start)
      AND starts_at < now()
    ORDER BY hashtext(market_ticker || watch_id) LIMIT {_BOOKS}
) AS moment"""  # noqa: S608
    return one_row(
        f"""\
WITH book AS (
    SELECT market_ticker, at, yes_micros[cardinality(yes_micros)] AS yes_bid_micros,
           1000000 - no_micros[cardinality(no_micros)] AS yes_ask_micros
    FROM ({books_at(moments)}) AS book
), crossed AS (
    SELECT * FROM book WHERE yes_bid_micros >= yes_ask_micros
), example AS (
    SELECT * FROM crossed ORDER BY at, market_ticker LIMIT {EXAMPLES}
)
SELECT NOT EXISTS (SELECT FROM crossed) AS passed,
       (SELECT count(*) FROM crossed) AS books_crossed,
       (SELECT count(*) FROM book) AS books_compared,
       {as_examples("example")}""",  # noqa: S608
        day,
        "books_crossed",
        "books_compared",
    )


def watches_explained(day: date) -> Select[Any]:
    """Whether every watch of the day has a cause if it has ended, and none runs beside another."""
    return one_row(
        f"""\
WITH watch AS (
    SELECT * FROM book_watches
    WHERE starts_at < :end AND coalesce(ends_at, 'infinity') >= :start
), wrong AS (
    SELECT market_ticker, starts_at, ends_at, ended_by,
           CASE WHEN ends_at IS NULL AND ended_by IS NOT NULL
                THEN 'goes on, and has a cause of its end'
                WHEN ends_at IS NOT NULL AND coalesce(ended_by, '') = ''
                THEN 'ended without a cause'
                WHEN ends_at < starts_at THEN 'ends before it starts'
                WHEN EXISTS (SELECT FROM book_watches AS other
                             WHERE other.market_ticker = watch.market_ticker
                               AND other.start_order < watch.start_order
                               AND coalesce(other.ends_at, 'infinity') > watch.starts_at)
                THEN 'began while another went on' END AS question
    FROM watch
), example AS (
    SELECT * FROM wrong WHERE question IS NOT NULL ORDER BY starts_at, market_ticker
    LIMIT {EXAMPLES}
)
SELECT NOT EXISTS (SELECT FROM wrong WHERE question IS NOT NULL) AS passed,
       (SELECT count(*) FROM wrong WHERE question IS NOT NULL) AS watches_in_question,
       (SELECT count(*) FROM watch) AS watches,
       (SELECT count(*) FROM watch WHERE ends_at IS NULL) AS watches_going_on,
       (SELECT count(*) FROM watch WHERE ended_by = 'sequence_jump') AS ended_by_sequence_jump,
       {as_examples("example")}""",  # noqa: S608
        day,
        "watches_in_question",
        "watches",
        "watches_going_on",
        "ended_by_sequence_jump",
    )


CHECKS = (
    Check(
        "books_equal_their_deltas",
        "Each snapshot of a book is the one before it, changed by the deltas in between.",
        books_equal_their_deltas,
    ),
    Check("books_not_crossed", "The best bid of a book is below its best ask.", books_not_crossed),
    Check(
        "watches_explained",
        "Every interval in which a book was known ended for a cause, and none overlap.",
        watches_explained,
    ),
)
