"""Every table and column, once.

Units are in the names: `*_micros` are millionths of a dollar, `*_centis` hundredths of a
contract, `*_at` an instant (UTC), `*_on` a UTC day. Tables with a `partitions` entry in `info` are
partitioned by range of the named column, one partition a day or month; see `partitions.py`.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSONB

metadata = MetaData()

# Tickers compare byte by byte: the order is the same on every server, and sorts run at full speed.
_ASCII = Text(collation="C")


def _instant(name: str, **options: Any) -> Column[Any]:
    return Column(name, DateTime(timezone=True), **{"nullable": False, **options})


def _daily(column: str) -> dict[str, Any]:
    return {
        "postgresql_partition_by": f"RANGE ({column})",
        "info": {"partitions": "day", "partition_column": column},
    }


def _monthly(column: str) -> dict[str, Any]:
    return {
        "postgresql_partition_by": f"RANGE ({column})",
        "info": {"partitions": "month", "partition_column": column},
    }


def _first_seen(comment: str) -> tuple[Column[Any], ...]:
    return (
        _instant("first_seen_at", server_default=func.now(), comment=comment),
        _instant("updated_at", server_default=func.now(), comment="when a fact in it last changed"),
    )


def _told() -> tuple[Column[Any], ...]:
    """What was told, by whom, and when the exchange is asked next."""
    return (
        _instant(
            "exchange_updated_at", nullable=True, comment="the exchange's time of last change"
        ),
        Column("metadata", JSONB, comment="the exchange's JSON, without figures of trading"),
        Column("metadata_source", _ASCII, comment="lifecycle, rest or historical"),
        _instant("read_at", nullable=True, comment="when REST last told of it"),
        _instant(
            "next_read_at",
            nullable=True,
            server_default=func.now(),
            comment="when REST is asked next; null once all is final",
        ),
        Column("read_attempts", Integer, nullable=False, server_default=text("0")),
        _instant("not_found_at", nullable=True, comment="when REST last said that there is none"),
    )


def words_of(text_sql: str) -> str:
    """SQL for the words of a text, as the `words` columns hold them and searches ask for them.

    In small letters, split at whatever is neither letter nor digit, so that a ticker counts as its
    parts; the same on every server.
    """
    return (
        f"string_to_array(trim(regexp_replace(lower(({text_sql}) COLLATE pg_c_utf8),"
        " '[^[:alnum:]]+', ' ', 'g')), ' ')"
    )


def _words(*columns: str) -> Column[Any]:
    # Cut, since an entry of an index that holds them has room for 2,700 bytes.
    joined = " || ' ' || ".join(f"coalesce({column}, '')" for column in columns)
    text_sql = f"left({joined}, 400)"
    return Column(
        "words",
        ARRAY(Text(collation="C")),
        Computed(words_of(text_sql), persisted=True),
        comment="of ticker and titles (400 characters), for searching",
    )


# What the status of a market without an outcome follows from, beside the clock.
_STATUS_COLUMNS = ("opens_at", "closes_at", "is_paused", "told_status")


def _by_word(table: str) -> Index:
    # Updates add to a short list that each search reads through, before they reach the index.
    return Index(
        f"{table}_by_word",
        "words",
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": "256"},
    )


raw_trades = Table(
    "raw_trades",
    metadata,
    _instant("landed_at", comment="when the row was loaded; the partition key"),
    _instant("received_at", comment="receiver's clock: the frame's or the REST answer's arrival"),
    _instant(
        "traded_at", comment="the exchange's clock; milliseconds over ws, microseconds over rest"
    ),
    Column("connection", BigInteger, comment="ws connection (Unix seconds of its opening)"),
    Column("seq", BigInteger, comment="sequence number on the trade subscription"),
    Column("tape_segment", BigInteger, comment="tape file (Unix ms of its opening)"),
    Column("tape_offset", BigInteger, comment="byte offset of the zstd frame in that file"),
    Column("count_centis", BigInteger, nullable=False, comment="contracts, hundredths"),
    Column(
        "yes_price_micros", Integer, nullable=False, comment="price of yes, millionths of a dollar"
    ),
    Column("trade_id", Uuid, nullable=False),
    Column("is_block_trade", Boolean, comment="null where the source did not say"),
    Column("source", _ASCII, nullable=False, comment="ws, rest or historical"),
    Column("taker_side", _ASCII, nullable=False, comment="yes or no"),
    Column("market_ticker", _ASCII, nullable=False),
    comment="One trade as one source reported it: append-only provenance, duplicates included.",
    **_daily("landed_at"),
)

trades = Table(
    "trades",
    metadata,
    _instant(
        "traded_at", comment="exchange clock; microseconds where exact_time, else milliseconds"
    ),
    Column(
        "feed_order", BigInteger, comment="ws connection << 32 | seq; null if seen over REST alone"
    ),
    Column("count_centis", BigInteger, nullable=False, comment="contracts, hundredths"),
    Column(
        "yes_price_micros", Integer, nullable=False, comment="price of yes, millionths of a dollar"
    ),
    Column("traded_on", Date, primary_key=True, comment="UTC day of traded_at"),
    Column("trade_id", Uuid, primary_key=True, comment="the exchange's identity of the trade"),
    Column(
        "exact_time", Boolean, nullable=False, comment="traded_at has microseconds (REST saw it)"
    ),
    Column("is_block_trade", Boolean, comment="null where no source said"),
    Column("taker_side", _ASCII, nullable=False, comment="yes or no"),
    Column("market_ticker", _ASCII, nullable=False),
    Index("trades_by_market", "market_ticker", "traded_at"),
    # Trades arrive about in order of time: block ranges find an interval at almost no cost.
    Index(
        "trades_by_time",
        "traded_at",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on", "pages_per_range": "32"},
    ),
    comment="Every trade once. Order: traded_at, feed_order (nulls last), trade_id.",
    **_daily("traded_on"),
)

quotes = Table(
    "quotes",
    metadata,
    _instant("quoted_at", comment="exchange clock, milliseconds"),
    _instant("received_at", comment="receiver's clock"),
    Column("feed_order", BigInteger, nullable=False, comment="ws connection << 32 | frame number"),
    Column("yes_bid_size_centis", BigInteger, nullable=False),
    Column("yes_ask_size_centis", BigInteger, nullable=False),
    Column("last_trade_size_centis", BigInteger, nullable=False),
    Column(
        "volume_centis", BigInteger, nullable=False, comment="cumulative since the market opened"
    ),
    Column("open_interest_centis", BigInteger, nullable=False),
    Column("dollar_volume", BigInteger, nullable=False, comment="whole dollars, as sent"),
    Column("dollar_open_interest", BigInteger, nullable=False, comment="whole dollars, as sent"),
    Column("price_micros", Integer, nullable=False, comment="last trade price of yes"),
    Column("yes_bid_micros", Integer, nullable=False, comment="0 where there is no bid"),
    Column("yes_ask_micros", Integer, nullable=False, comment="1000000 where there is no ask"),
    Column("market_ticker", _ASCII, nullable=False),
    Index("quotes_by_market", "market_ticker", "quoted_at"),
    Index(
        "quotes_by_time",
        "quoted_at",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on", "pages_per_range": "32"},
    ),
    comment="One ticker message: best quotes, sizes, last price, cumulative volume, open interest.",
    **_daily("quoted_at"),
)

book_snapshots = Table(
    "book_snapshots",
    metadata,
    _instant("at", comment="exchange clock: when it was sent; an own one: its last delta's time"),
    _instant("received_at", comment="receiver's clock"),
    Column("feed_order", BigInteger, nullable=False, comment="ws connection << 32 | frame number"),
    Column(
        "seq",
        BigInteger,
        comment="number on its subscription; of an own one: that of the exchange's it goes back to",
    ),
    Column("sid", Integer, nullable=False),
    Column(
        "source",
        _ASCII,
        nullable=False,
        comment="exchange, or own: rebuilt from the one before and the deltas since",
    ),
    Column("market_ticker", _ASCII, nullable=False),
    Column("yes_micros", ARRAY(Integer), nullable=False, comment="prices bid for yes, ascending"),
    Column("yes_centis", ARRAY(BigInteger), nullable=False, comment="contracts at each of them"),
    Column(
        "no_micros",
        ARRAY(Integer),
        nullable=False,
        comment="prices bid for no (an ask of yes at 1 dollar less each), ascending",
    ),
    Column("no_centis", ARRAY(BigInteger), nullable=False, comment="contracts at each of them"),
    Index("book_snapshots_by_market", "market_ticker", "at"),
    comment="A whole order book at an instant; book_deltas of higher feed_order change it.",
    **_daily("at"),
)

book_deltas = Table(
    "book_deltas",
    metadata,
    _instant("at", comment="exchange clock, milliseconds"),
    _instant("received_at", comment="receiver's clock"),
    Column("feed_order", BigInteger, nullable=False, comment="ws connection << 32 | frame number"),
    Column("seq", BigInteger, nullable=False, comment="sequence number on its subscription"),
    Column("delta_centis", BigInteger, nullable=False, comment="contracts more, or fewer (< 0)"),
    Column("price_micros", Integer, nullable=False, comment="price bid, in terms of its own side"),
    Column("sid", Integer, nullable=False),
    Column("side", _ASCII, nullable=False, comment="yes or no: which side's bids"),
    Column("market_ticker", _ASCII, nullable=False),
    Index("book_deltas_by_market", "market_ticker", "at"),
    comment="One change of one price level of an order book.",
    **_daily("at"),
)

book_watches = Table(
    "book_watches",
    metadata,
    Column("watch_id", BigInteger, Identity(), primary_key=True),
    Column("market_ticker", _ASCII, nullable=False),
    _instant("starts_at", comment="`at` of the exchange's snapshot that begins it"),
    _instant(
        "ends_at", nullable=True, comment="first instant not known complete; null: it goes on"
    ),
    Column("start_order", BigInteger, nullable=False, comment="feed_order of that snapshot"),
    Column("connection", BigInteger, nullable=False),
    Column("sid", Integer, nullable=False),
    Column(
        "use_yes_price",
        Boolean,
        nullable=False,
        comment="whether the feed told no-side prices in terms of yes; stored ones never are",
    ),
    Column("ended_by", Text, comment="sequence_jump, disconnect, not watched any more, …"),
    Index("book_watches_by_market", "market_ticker", "starts_at"),
    Index("book_watches_open", "market_ticker", postgresql_where=text("ends_at IS NULL")),
    comment="Intervals in which a market's book is known without a gap.",
)

lifecycle_events = Table(
    "lifecycle_events",
    metadata,
    _instant("received_at", comment="receiver's clock; the partition key"),
    _instant("sent_at", nullable=True, comment="sending_ts_ms of the frame"),
    Column("connection", BigInteger, nullable=False),
    Column("sid", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("message_type", _ASCII, nullable=False, comment="type of the frame"),
    Column("event_type", _ASCII, comment="created, determined, …; null for event-level messages"),
    Column("market_ticker", _ASCII),
    Column("event_ticker", _ASCII),
    Column("message", JSONB, nullable=False, comment="msg as sent"),
    Index("lifecycle_events_by_market", "market_ticker", "received_at"),
    comment="Every lifecycle message: each transition of each market, in order.",
    **_daily("received_at"),
)

rejected_messages = Table(
    "rejected_messages",
    metadata,
    _instant("received_at", comment="receiver's clock; the partition key"),
    Column("source", _ASCII, nullable=False, comment="ws, rest or historical"),
    Column("connection", BigInteger),
    Column("tape_segment", BigInteger),
    Column("tape_offset", BigInteger),
    Column("reason", Text, nullable=False),
    Column("code_version", _ASCII, nullable=False, comment="version of the parser that refused it"),
    Column("message", LargeBinary, nullable=False, comment="the bytes as received"),
    Index("rejected_messages_by_time", "received_at"),
    comment="A message that could not be read, with its bytes and the reason.",
    **_daily("received_at"),
)

series = Table(
    "series",
    metadata,
    Column("series_ticker", _ASCII, primary_key=True),
    *_first_seen("first event that named it"),
    Column("title", Text),
    Column("frequency", _ASCII, comment="how often its events recur, in the exchange's words"),
    Column("category", Text, comment="the first of its categories"),
    Column("categories", ARRAY(Text)),
    Column("tags", ARRAY(Text)),
    Column("settlement_sources", JSONB, comment="list of {name, url}"),
    Column("fee_type", _ASCII),
    Column("fee_multiplier", Numeric),
    *_told(),
    _words("series_ticker", "title"),
    comment="Every series of events; one that the exchange does not know has not_found_at.",
)

events = Table(
    "events",
    metadata,
    Column("event_ticker", _ASCII, primary_key=True),
    *_first_seen("first message that named it"),
    Column("series_ticker", _ASCII, comment="null where unknown, empty where it has none"),
    Column("title", Text),
    Column("sub_title", Text),
    Column("category", Text),
    Column("mutually_exclusive", Boolean),
    Column("collateral_return_type", _ASCII, comment="MECNET, DIRECNET or empty"),
    _instant("strike_date", nullable=True),
    Column("strike_period", Text),
    Column("fee_type_override", _ASCII, comment="null where the fee is the series' own"),
    Column("fee_multiplier_override", Numeric),
    *_told(),
    _words("event_ticker", "title", "sub_title"),
    Index(
        "events_listed", "event_ticker", postgresql_include=["series_ticker", "category", "words"]
    ),
    Index("events_by_series", "series_ticker", "event_ticker"),
    Index("events_by_category", "category", "event_ticker"),
    Index(
        "events_without_category",
        "series_ticker",
        "event_ticker",
        postgresql_where=text("category IS NULL"),
    ),
    _by_word("events"),
    Index("events_due", "next_read_at", postgresql_where=text("next_read_at IS NOT NULL")),
    Index("events_not_found", "not_found_at", postgresql_where=text("not_found_at IS NOT NULL")),
    Index("events_by_update", "exchange_updated_at"),
    comment="Every event that the exchange lists or a market names.",
)

markets = Table(
    "markets",
    metadata,
    Column("market_ticker", _ASCII, primary_key=True),
    *_first_seen("first message that named it"),
    Column("event_ticker", _ASCII),
    Column("series_ticker", _ASCII, comment="its event's; null while the event is not known"),
    Column("market_type", _ASCII, comment="binary or scalar"),
    Column("title", Text),
    Column("yes_sub_title", Text),
    Column("no_sub_title", Text),
    _instant("created_at", nullable=True),
    _instant("opens_at", nullable=True, comment="trading begins; no message is sent then"),
    _instant("closes_at", nullable=True, comment="trading ends; no message is sent then"),
    _instant("expected_expires_at", nullable=True),
    Column(
        "is_paused",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="deactivated by the exchange within its trading time",
    ),
    Column(
        "told_status",
        _ASCII,
        comment="status in the exchange's last REST answer; the clock may have moved it on",
    ),
    Column(
        "outcome_status",
        _ASCII,
        comment="that of its settlement: determined, disputed, amended, finalized; null before",
    ),
    Column("can_close_early", Boolean),
    Column("settlement_timer_seconds", BigInteger, comment="from determination to settlement"),
    Column("strike_type", _ASCII),
    Column("floor_strike", Numeric),
    Column("cap_strike", Numeric),
    Column("functional_strike", Text),
    Column("custom_strike", JSONB),
    Column("price_level_structure", _ASCII),
    Column("price_ranges", JSONB, comment="tick sizes: list of {start, end, step} in dollars"),
    Column(
        "is_combo",
        Boolean,
        Computed("market_ticker LIKE 'KXMVE%'"),
        nullable=False,
        comment="a multivariate market; kept only when traded",
    ),
    Column("yes_bid_micros", Integer, comment="as of read_at, like the figures that follow"),
    Column("yes_ask_micros", Integer),
    Column("last_price_micros", Integer),
    Column("volume_centis", BigInteger),
    Column("open_interest_centis", BigInteger),
    *_told(),
    _words("market_ticker", "yes_sub_title", "title"),
    Index("markets_by_event", "event_ticker", "market_ticker"),
    # Lists read their filters from these alone: the rows are wide and lie in order of arrival.
    Index(
        "markets_listed",
        "market_ticker",
        postgresql_include=["series_ticker", *_STATUS_COLUMNS, "outcome_status", "words"],
    ),
    Index(
        "markets_by_series",
        "series_ticker",
        "market_ticker",
        postgresql_include=[*_STATUS_COLUMNS, "outcome_status"],
    ),
    # What has no outcome yet is a small part, in which the clock moves the status on.
    Index(
        "markets_live",
        "market_ticker",
        postgresql_include=["series_ticker", *_STATUS_COLUMNS, "words"],
        postgresql_where=text("outcome_status IS NULL"),
    ),
    Index(
        "markets_live_by_close",
        "closes_at",
        "market_ticker",
        postgresql_include=["opens_at", "is_paused", "told_status"],
        postgresql_where=text("outcome_status IS NULL"),
    ),
    Index("markets_live_by_open", "opens_at", postgresql_where=text("outcome_status IS NULL")),
    Index("markets_paused", "market_ticker", postgresql_where=text("is_paused")),
    Index(
        "markets_by_outcome",
        "outcome_status",
        "market_ticker",
        postgresql_where=text("outcome_status <> 'finalized'"),
    ),
    Index(
        "markets_unsettled_by_event",
        "event_ticker",
        "closes_at",
        "outcome_status",
        postgresql_where=text("outcome_status IS DISTINCT FROM 'finalized'"),
    ),
    _by_word("markets"),
    Index("markets_by_close", "closes_at", "market_ticker"),
    Index("markets_by_creation", "created_at"),
    Index("markets_by_update", "exchange_updated_at"),
    Index("markets_due", "next_read_at", postgresql_where=text("next_read_at IS NOT NULL")),
    Index("markets_not_found", "not_found_at", postgresql_where=text("not_found_at IS NOT NULL")),
    comment="Every market seen; a row appears with the first message that names it.",
)


def _outcome() -> tuple[Column[Any], ...]:
    return (
        Column(
            "status", _ASCII, nullable=False, comment="determined, disputed, amended or finalized"
        ),
        Column("result", _ASCII, nullable=False, comment="yes, no, scalar, void, …: an open set"),
        Column(
            "settlement_value_micros",
            Integer,
            comment="what one yes contract pays, millionths of a dollar; null where untold",
        ),
        _instant("effective_at", comment="since when this holds, exchange clock"),
        Column("source", _ASCII, nullable=False, comment="lifecycle, rest or historical"),
        _instant("recorded_at", server_default=func.now(), comment="when it was first learnt"),
        _instant("confirmed_at", nullable=True, comment="when REST said the same"),
    )


settlements = Table(
    "settlements",
    metadata,
    Column("market_ticker", _ASCII, primary_key=True),
    *_outcome(),
    _instant("determined_at", nullable=True, comment="seconds; null where no message told it"),
    _instant("settled_at", nullable=True, comment="when it was paid; null before"),
    Index("settlements_by_time", "effective_at", "market_ticker"),
    # Yes and no are found soon enough in order of time.
    Index(
        "settlements_by_rare_result",
        "result",
        "effective_at",
        "market_ticker",
        postgresql_where=text("result <> 'yes' AND result <> 'no'"),
    ),
    Index(
        "settlements_unsettled",
        "status",
        "effective_at",
        "market_ticker",
        postgresql_where=text("status <> 'finalized'"),
    ),
    Index("settlements_by_settling", "settled_at"),
    Index("settlements_unconfirmed", "recorded_at", postgresql_where=text("confirmed_at IS NULL")),
    comment="The outcome of a market as it stands.",
)

settlement_history = Table(
    "settlement_history",
    metadata,
    Column("market_ticker", _ASCII, primary_key=True),
    Column(
        "version", SmallInteger, primary_key=True, comment="1, 2, … in the order they took effect"
    ),
    *_outcome(),
    comment="Every version of a market's outcome: determined, disputed, amended, finalized.",
)


def _candles(name: str, interval: str, partitioning: dict[str, Any]) -> Table:
    return Table(
        name,
        metadata,
        _instant("starts_at", comment="start of the interval, UTC"),
        Column("volume_centis", BigInteger, nullable=False, comment="contracts traded, hundredths"),
        Column("notional_micro_centis", BigInteger, nullable=False, comment="sum of price × count"),
        Column("open_micros", Integer, comment="price of the first trade; null without a trade"),
        Column("high_micros", Integer),
        Column("low_micros", Integer),
        Column("close_micros", Integer),
        Column("trade_count", Integer, nullable=False),
        Column("market_ticker", _ASCII, nullable=False),
        Column(
            "open_interest_centis",
            BigInteger,
            comment="at the end of the interval; null where no quote was ever seen, like all below",
        ),
        _instant("quoted_at", nullable=True, comment="the last quote before the interval's end"),
        Column(
            "yes_bid_open_micros",
            Integer,
            comment="best bid as it stood at the start; 0 where there is none",
        ),
        Column("yes_bid_high_micros", Integer, comment="of what stood at the start and came since"),
        Column("yes_bid_low_micros", Integer),
        Column("yes_bid_close_micros", Integer),
        Column("yes_ask_open_micros", Integer, comment="1000000 where there is none"),
        Column("yes_ask_high_micros", Integer),
        Column("yes_ask_low_micros", Integer),
        Column("yes_ask_close_micros", Integer),
        Column(
            "quote_count",
            Integer,
            nullable=False,
            server_default=text("0"),
            comment="quotes within the interval",
        ),
        Column(
            "quote_gap",
            Boolean,
            nullable=False,
            server_default=text("false"),
            comment="bid, ask or open interest may be wrong: quotes were lost since the one that"
            " stood at the start",
        ),
        # The key leads with the market: every page asks for one market in order of time.
        PrimaryKeyConstraint("market_ticker", "starts_at"),
        comment=f"One market in one {interval} in which it traded or was quoted.",
        **partitioning,
    )


candles_1m = _candles("candles_1m", "minute", _daily("starts_at"))
candles_1h = _candles("candles_1h", "hour", _monthly("starts_at"))
candles_1d = _candles("candles_1d", "day", _monthly("starts_at"))

stale_candles = Table(
    "stale_candles",
    metadata,
    _instant("starts_at", comment="the minute whose candle no longer equals its trades"),
    Column("market_ticker", _ASCII, nullable=False),
    _instant("noted_at", server_default=func.now(), comment="since when the candle is out of date"),
    Index("stale_candles_by_market", "market_ticker"),
    comment="Minutes whose trades or quotes changed since their candles were computed; may repeat.",
)

gaps = Table(
    "gaps",
    metadata,
    Column("gap_id", BigInteger, Identity(), primary_key=True),
    Column("channel", _ASCII, nullable=False),
    Column("cause", Text, nullable=False, comment="disconnect, restart, sequence_jump, silence, …"),
    Column(
        "status", _ASCII, nullable=False, comment="open, healed or explained (no replay exists)"
    ),
    _instant("starts_at", comment="last instant known to be complete, exchange clock"),
    _instant("ends_at", comment="first instant known to be complete again, exchange clock"),
    _instant("detected_at", server_default=func.now()),
    _instant("healed_at", nullable=True),
    _instant("next_attempt_at", server_default=func.now()),
    Column("healed_by", _ASCII, comment="rest, historical"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column(
        "trades_found", BigInteger, comment="trades the healing source reported in the interval"
    ),
    Column("trades_missing", BigInteger, comment="of those, the ones that had not been recorded"),
    Column("connection", BigInteger, comment="the connection that noticed it"),
    Column("first_seq", BigInteger, comment="first sequence number lost, where numbered"),
    Column("last_seq", BigInteger, comment="last sequence number lost, where numbered"),
    Column("detail", Text, comment="what the last attempt found, or why nothing can be healed"),
    Column("market_ticker", _ASCII, comment="the one market concerned; null: all of the channel"),
    Index("gaps_by_channel", "channel", "ends_at"),
    Index("gaps_open", "next_attempt_at", postgresql_where=text("status = 'open'")),
    comment="Intervals in which a channel may have lost something, and how each was closed.",
)

coverage = Table(
    "coverage",
    metadata,
    Column("traded_on", Date, primary_key=True),
    Column("market_ticker", _ASCII, primary_key=True, comment="* for the whole day"),
    Column("status", _ASCII, nullable=False, comment="proven, healed, degraded or unknown"),
    Column("trades_held", BigInteger, nullable=False),
    Column("trades_swept", BigInteger, comment="trades the REST sweep of the day reported"),
    Column("trades_added", BigInteger, comment="of those, the ones that had not been recorded"),
    Column("trades_unconfirmed", BigInteger, comment="recorded trades the sweep did not report"),
    _instant("swept_until", nullable=True, comment="the sweep covers the day up to this instant"),
    _instant("updated_at", server_default=func.now()),
    comment="The evidence that nothing is missing, per day.",
)

ingestion_checkpoints = Table(
    "ingestion_checkpoints",
    metadata,
    Column("source", _ASCII, primary_key=True),
    Column("scope", _ASCII, primary_key=True),
    Column("position", JSONB, nullable=False),
    _instant("updated_at", server_default=func.now()),
    comment="How far a source has been loaded; committed with the rows it speaks for.",
)

recorded_exchange = Table(
    "recorded_exchange",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default=text("true")),
    Column("exchange", _ASCII, nullable=False, comment="simulated, or the domain of its REST API"),
    _instant("first_used_at", server_default=func.now()),
    CheckConstraint("only_row", name="recorded_exchange_once"),
    comment="Which exchange this database records: data of two must never mix.",
)

rest_budget = Table(
    "rest_budget",
    metadata,
    Column("budget_id", SmallInteger, primary_key=True),
    Column("tokens", DOUBLE_PRECISION, nullable=False, comment="may be negative: reserved ahead"),
    _instant("updated_at", server_default=func.now()),
    comment="One token bucket for all processes that ask the exchange's REST API.",
)

ingestion_metrics = Table(
    "ingestion_metrics",
    metadata,
    Column("name", _ASCII, primary_key=True),
    Column("labels", _ASCII, primary_key=True, comment='as in Prometheus text: channel="trade"'),
    Column("value", DOUBLE_PRECISION, nullable=False),
    _instant("updated_at", server_default=func.now()),
    comment="Counters and gauges of the ingesting processes, for status, health and metrics.",
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", BigInteger, Identity(), primary_key=True),
    Column("key_hash", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the key"),
    Column("prefix", _ASCII, nullable=False, comment="first characters, shown in lists"),
    Column("name", Text, nullable=False),
    _instant("created_at", server_default=func.now()),
    _instant("expires_at", nullable=True),
    _instant("revoked_at", nullable=True),
    Column("plan", _ASCII, nullable=False, comment="name of the plan it was made with"),
    Column("monthly_credits", BigInteger, nullable=False, comment="anew each month, UTC"),
    Column("requests_per_second", Integer, nullable=False),
    Column("previous_hash", LargeBinary, unique=True, comment="of the key before its rotation"),
    _instant("previous_until", nullable=True, comment="until then the key before works, too"),
    CheckConstraint("monthly_credits >= 0", name="api_keys_monthly_credits"),
    CheckConstraint("requests_per_second > 0", name="api_keys_requests_per_second"),
    comment="Customers' keys; only a hash is stored.",
)

api_balances = Table(
    "api_balances",
    metadata,
    Column("key_id", BigInteger, primary_key=True, autoincrement=False),
    Column("month", Date, nullable=False, comment="first day of the month of month_spent"),
    Column("month_spent", BigInteger, nullable=False, comment="of that month's credits"),
    Column("extra_left", BigInteger, nullable=False, comment="of the granted credits"),
    CheckConstraint("month_spent >= 0", name="api_balances_month_spent"),
    CheckConstraint("extra_left >= 0", name="api_balances_extra_left"),
    comment="What each key has spent; the credits of a month are spent before granted ones.",
)

api_usage = Table(
    "api_usage",
    metadata,
    Column("key_id", BigInteger, primary_key=True, autoincrement=False),
    Column("used_on", Date, primary_key=True, comment="UTC day of the charge"),
    Column("endpoint", _ASCII, primary_key=True, comment="method and route: POST /trades"),
    Column("requests", BigInteger, nullable=False, comment="charged, so answered with 2xx"),
    Column("credits", BigInteger, nullable=False),
    Column("extra_credits", BigInteger, nullable=False, comment="of credits, granted ones"),
    comment="What each key used, by day and endpoint; committed with the balance it lowers.",
)

api_meters = Table(
    "api_meters",
    metadata,
    Column("meter_id", Uuid, primary_key=True, comment="one process of the API"),
    Column("last_batch", BigInteger, nullable=False, comment="number of its last batch of charges"),
    Column(
        "charged",
        ARRAY(Integer),
        nullable=False,
        comment="places in that batch whose charge was made, from 1",
    ),
    _instant("updated_at", server_default=func.now()),
    comment="Which charges are committed: a batch whose commit got no answer is not charged twice.",
)

credit_grants = Table(
    "credit_grants",
    metadata,
    Column("grant_id", BigInteger, Identity(), primary_key=True),
    Column("key_id", BigInteger, nullable=False),
    Column("credits", BigInteger, nullable=False),
    _instant("granted_at", server_default=func.now()),
    Column("note", Text),
    CheckConstraint("credits > 0", name="credit_grants_credits"),
    Index("credit_grants_by_key", "key_id", "granted_at"),
    comment="Credits given beyond the plan; they do not expire.",
)

alerts = Table(
    "alerts",
    metadata,
    Column("alert_id", BigInteger, Identity(), primary_key=True),
    Column("name", _ASCII, nullable=False, comment="what is wrong, and where: stale trades"),
    Column("kind", _ASCII, nullable=False, comment="stale, gap, check, run, rejected, disk, …"),
    Column("severity", _ASCII, nullable=False, comment="error or warning"),
    Column("summary", Text, nullable=False, comment="one sentence"),
    Column("remedy", Text, nullable=False, comment="what to do"),
    Column("link", Text, comment="the run or asset in Dagster"),
    _instant("started_at", server_default=func.now()),
    _instant("told_at", nullable=True, comment="null: it has not held for long enough yet"),
    _instant("gone_since", nullable=True, comment="null: it holds"),
    _instant("recovered_at", nullable=True, comment="null: it goes on"),
    Column("recovery", Text, comment="one sentence"),
    Index("alerts_going_on", "name", unique=True, postgresql_where=text("recovered_at IS NULL")),
    Index("alerts_by_start", "started_at"),
    comment="What operators were told is wrong, from change to recovery.",
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alert_id", BigInteger, primary_key=True, autoincrement=False),
    Column("event", _ASCII, primary_key=True, comment="started or recovered"),
    Column("channel", _ASCII, primary_key=True, comment="log, webhook or smtp"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _instant("next_attempt_at", nullable=True, comment="null once delivered or given up"),
    _instant("delivered_at", nullable=True),
    Column("error", Text, comment="of the last attempt"),
    Index(
        "alert_deliveries_due",
        "next_attempt_at",
        postgresql_where=text("next_attempt_at IS NOT NULL"),
    ),
    comment="Each message about an alert, by channel; tried again until it arrives.",
)

archives = Table(
    "archives",
    metadata,
    Column("table_name", _ASCII, primary_key=True),
    Column("day", Date, primary_key=True, comment="UTC"),
    Column("path", Text, nullable=False, comment="of the Parquet file, below KALSHI_ARCHIVE_URL"),
    Column("schema_version", Integer, nullable=False, comment="of the file's columns"),
    Column("row_count", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False, comment="of the file"),
    Column("sha256", LargeBinary, nullable=False, comment="of the file"),
    Column("checksum", Numeric, nullable=False, comment="sum of the rows' hashes, in any order"),
    _instant("archived_at", server_default=func.now()),
    _instant("verified_at", nullable=True, comment="read back and found equal to the table"),
    _instant("dropped_at", nullable=True, comment="then the rows left the database"),
    _instant("restored_at", nullable=True, comment="then they came back; kept for a day"),
    comment="Days of a table that are a Parquet file, too, or only that.",
)
