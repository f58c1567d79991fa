"""What is known of the completeness of trades: one small picture, cheap to read at any volume."""

# First day held (in the database, or in the archive alone), open intervals of trades, and the
# evidence per day. A day that is dropped into the archive changes nothing of it.
COMPLETENESS = """\
SELECT json_build_object(
    'first_day', least((SELECT min(traded_on) FROM trades),
                       (SELECT min(day) FROM archives WHERE table_name = 'trades'
                        AND dropped_at IS NOT NULL AND row_count > 0)),
    'gaps', (SELECT coalesce(json_agg(json_build_object(
                 'starts_at', starts_at, 'ends_at', ends_at)), '[]')
             FROM gaps WHERE status = 'open' AND channel = 'trade'),
    'days', (SELECT coalesce(json_agg(json_build_object(
                 'traded_on', traded_on, 'status', status, 'swept_until', swept_until)), '[]')
             FROM coverage WHERE market_ticker = '*'))"""
