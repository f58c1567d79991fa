"""A made-up exchange of a million markets, as the reference benchmark loads it.

Skewed like the real one: one series of short crypto ladders holds half of all markets and every
"bitcoin", traded combos lie in one block, nine markets of ten are settled, and some wait for
months. Rows arrive in order of time, so neighbours by ticker are far apart on disk.
"""

import psycopg

from kalshi_platform.storage.engine import connect

# Half of all events are its own; it sorts among the first third of all series.
HUGE_SERIES = "KXBTC15M"
CATEGORIES = ("Sports", "Politics", "Crypto", "Economics", "Climate and Weather", "World")

_SERIES = """\
INSERT INTO series (series_ticker, title, frequency, category, categories, tags,
                    settlement_sources, fee_type, fee_multiplier, exchange_updated_at, metadata,
                    metadata_source, read_at, next_read_at)
SELECT ticker, title, 'custom', category, ARRAY[category], ARRAY['tag' || number %% 40],
       '[{"name": "The Source", "url": "https://example.com"}]', 'quadratic', 1, now(),
       jsonb_build_object('ticker', ticker, 'title', title), 'rest', now(), NULL
FROM (SELECT number,
             CASE WHEN number = 0 THEN 'KXBTC15M' ELSE 'KX' || upper(translate(
                  substr(md5(number::text), 1, 5), '0123456789', 'ghijklmnop')) || number END
                 AS ticker,
             CASE WHEN number = 0 THEN 'Bitcoin price up or down'
                  ELSE 'Contest ' || number || ' of name' || number %% 700 END AS title,
             CASE WHEN number = 0 THEN 'Crypto' WHEN number %% 100 < 60 THEN 'Sports'
                  WHEN number %% 100 < 80 THEN 'Politics' WHEN number %% 100 < 90 THEN 'Economics'
                  WHEN number %% 100 < 99 THEN 'Climate and Weather' ELSE 'World' END AS category
      FROM generate_series(0, %(series)s - 1) AS number) AS made"""

# Event number 0.9 of all closes now: a tenth lies ahead, the rest reaches 90 days back.
_EVENTS = """\
CREATE TEMP TABLE made_events AS
SELECT e.number, s.series_ticker,
       s.series_ticker || '-' || upper(to_char(closes_at, 'YYMONDD'))
           || lpad(e.number::text, 7, '0') AS event_ticker,
       CASE WHEN s.series_ticker LIKE 'KXBTC15M%%' THEN 'Bitcoin price in the next 15 minutes'
            ELSE s.title || ' on ' || to_char(closes_at, 'FMMonth FMDD') END AS title,
       s.category, closes_at
FROM (SELECT number, now() + (number - 0.9 * %(events)s) / %(events)s * interval '100 days'
                 AS closes_at,
             CASE WHEN number %% 2 = 0 THEN 0
                  ELSE 1 + floor(power(random(), 3) * (%(series)s - 1))::int END AS series_number
      FROM generate_series(0, %(events)s - 1) AS number) AS e
JOIN (SELECT row_number() OVER (ORDER BY series_ticker <> 'KXBTC15M', title) - 1 AS number,
             series_ticker, title, category
      FROM series) AS s ON s.number = e.series_number;
INSERT INTO events (event_ticker, series_ticker, title, sub_title, category, mutually_exclusive,
                    collateral_return_type, strike_date, exchange_updated_at, metadata,
                    metadata_source, read_at, next_read_at)
SELECT event_ticker, series_ticker, title, to_char(closes_at, 'Mon DD'), category,
       number %% 3 = 0, 'MECNET', closes_at, now(),
       jsonb_build_object('event_ticker', event_ticker), 'rest', now(), NULL
FROM made_events ORDER BY number"""

_MARKETS = """\
INSERT INTO markets (market_ticker, first_seen_at, event_ticker, series_ticker, market_type, title,
                     yes_sub_title, no_sub_title, created_at, opens_at, closes_at,
                     expected_expires_at, is_paused, told_status, outcome_status, can_close_early,
                     settlement_timer_seconds, strike_type, floor_strike, price_level_structure,
                     price_ranges, yes_bid_micros, yes_ask_micros, last_price_micros,
                     volume_centis, open_interest_centis, exchange_updated_at, metadata,
                     metadata_source, read_at, next_read_at)
SELECT CASE WHEN combo THEN 'KXMVECROSSCATEGORY0-S' || md5(number::text) || '-C' || number
            ELSE event_ticker || '-T' || number %% 10000 END,
       opens_at, CASE WHEN combo THEN 'KXMVECROSSCATEGORY0-' || number / 20 ELSE event_ticker END,
       CASE WHEN combo THEN '' ELSE series_ticker END, 'binary',
       'Will ' || title || ' be above ' || number %% 10000 || '?',
       'name' || floor(random() * 20000)::int || ' or more', 'Less', opens_at, opens_at, closes_at,
       closes_at, is_paused, 'active', outcome_status, true, 60, 'greater', number %% 10000 + 0.99,
       'linear_cent', '[{"start": "0.0000", "end": "1.0000", "step": "0.0100"}]', 450000, 460000,
       455000, number, number, closes_at,
       jsonb_build_object('ticker', number, 'rules_primary', 'If ' || title || ' is above '
           || number || ' at the time that is named, the market resolves to Yes. ' || md5(title),
           'rules_secondary', repeat(md5(number::text) || ' the outcome verified from the source ',
                                     12)),
       'rest', now(), CASE WHEN outcome_status IS NULL THEN closes_at END
FROM (SELECT e.event_ticker, e.series_ticker, e.title, e.closes_at, m.number,
             random() < 0.1 AS combo,
             CASE WHEN random() < 0.02 AND e.closes_at > now() THEN now() + interval '1 hour'
                  ELSE least(e.closes_at - interval '1 day', now() - interval '1 minute')
             END AS opens_at,
             random() < 0.001 AND e.closes_at > now() AS is_paused,
             CASE WHEN e.closes_at > now() OR random() < 0.0002 THEN NULL
                  WHEN random() < 0.00005 THEN 'disputed' WHEN random() < 0.00005 THEN 'amended'
                  WHEN e.closes_at < now() - interval '1 hour' THEN 'finalized'
                  WHEN random() < 0.7 THEN 'determined' END AS outcome_status
      FROM generate_series(0, %(markets)s - 1) AS m (number)
      JOIN made_events AS e
        ON e.number = m.number::bigint * %(events)s / %(markets)s) AS made
ORDER BY number;
INSERT INTO events (event_ticker, series_ticker, title, exchange_updated_at, read_at, next_read_at)
SELECT DISTINCT event_ticker, '', 'Combo', now(), now(), NULL::timestamptz
FROM markets WHERE is_combo"""

_SETTLEMENTS = """\
INSERT INTO settlements (market_ticker, status, result, settlement_value_micros, effective_at,
                         source, confirmed_at, determined_at, settled_at)
SELECT market_ticker, status, result,
       CASE result WHEN 'yes' THEN 1000000 WHEN 'no' THEN 0 WHEN 'scalar' THEN 437500 END,
       determined_at + interval '61.5 seconds', 'rest', determined_at, determined_at,
       CASE WHEN status = 'finalized' THEN determined_at + interval '61.5 seconds' END
FROM (SELECT market_ticker, outcome_status AS status,
             date_trunc('second', closes_at + random() * interval '10 minutes') AS determined_at,
             (ARRAY['yes', 'no', 'scalar', 'void'])[CASE WHEN dice < 0.45 THEN 1 WHEN dice < 0.99
                 THEN 2 WHEN dice < 0.9999 THEN 3 ELSE 4 END] AS result
      FROM (SELECT *, random() AS dice FROM markets WHERE outcome_status IS NOT NULL) AS diced
     ) AS made
ORDER BY determined_at;
INSERT INTO settlement_history (market_ticker, version, status, result, settlement_value_micros,
                                effective_at, source, confirmed_at)
SELECT market_ticker, 1, status, result, settlement_value_micros, effective_at, source, confirmed_at
FROM settlements"""


def load_reference(url: str, *, markets: int, events: int, series: int) -> None:
    """Fill series, events, markets and outcomes; indexes are rebuilt once all is there."""
    sizes = {"markets": markets, "events": events, "series": series}
    with connect(url) as connection:
        indexes = _without_indexes(connection)
        connection.execute("SELECT setseed(0.5)")
        for script in (_SERIES, _EVENTS, _MARKETS, _SETTLEMENTS):
            for statement in script.split(";\n"):
                connection.execute(statement.encode(), sizes)
        for index in indexes:
            connection.execute(index.encode())
    with connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _without_indexes(connection: psycopg.Connection) -> list[str]:
    """Drop every index that is no key; returns what makes them again."""
    rows = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        " AND tablename IN ('series', 'events', 'markets', 'settlements', 'settlement_history')"
        " AND indexname NOT LIKE '%\\_pkey'"
    ).fetchall()
    for name, _ in rows:
        connection.execute(f"DROP INDEX {name}".encode())
    return [definition for _, definition in rows]
