"""The command `kalshi-simulator`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from kalshi_simulator import replay as replaying
from kalshi_simulator import serving
from kalshi_simulator.recording import RecordingError
from kalshi_simulator.server import PortTaken
from kalshi_simulator.signing import ensure_credentials
from kalshi_simulator.state import StateError

app = typer.Typer(
    help="A second Kalshi: a made-up exchange that speaks the protocol of the real one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_HOST = typer.Option(help="Address to listen on.", envvar="KALSHI_SIMULATOR_HOST")
_REST_PORT = typer.Option(
    help="REST port; 0 takes a free one.", envvar="KALSHI_SIMULATOR_REST_PORT"
)
_WS_PORT = typer.Option(
    help="WebSocket port; 0 takes a free one.", envvar="KALSHI_SIMULATOR_WS_PORT"
)
_CREDENTIALS = typer.Option(
    help="Folder with key_id and private_key.pem, made when absent.",
    envvar="KALSHI_SIMULATOR_CREDENTIALS",
)
_PUBLIC_KEY = typer.Option(
    help="A further user, as ID=PEMFILE with the public key; may be repeated."
)
_READ_TOKENS = typer.Option(
    help="REST budget of a caller; a request costs 10.",
    envvar="KALSHI_SIMULATOR_READ_TOKENS_PER_SECOND",
    min=1,
)


@app.command()
def serve(
    host: Annotated[str, _HOST] = "127.0.0.1",
    rest_port: Annotated[int, _REST_PORT] = 8090,
    ws_port: Annotated[int, _WS_PORT] = 8091,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the world.", show_default="7", envvar="KALSHI_SIMULATOR_SEED"),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(help="How fast time runs.", envvar="KALSHI_SIMULATOR_SPEED", min=0.001),
    ] = 1.0,
    trades_per_second: Annotated[
        float,
        typer.Option(
            help="Mean rate over all markets, per simulated second, from now on.",
            envvar="KALSHI_SIMULATOR_TRADES_PER_SECOND",
            min=0.0,
        ),
    ] = 5.0,
    messages_per_second: Annotated[
        int,
        typer.Option(
            help="Load mode: top the feed up to this rate with tickers.",
            envvar="KALSHI_SIMULATOR_MESSAGES_PER_SECOND",
            min=0,
        ),
    ] = 0,
    history_days: Annotated[
        int,
        typer.Option(
            help="Days of trading before the first start.",
            envvar="KALSHI_SIMULATOR_HISTORY_DAYS",
            min=0,
        ),
    ] = 10,
    history_trades_per_second: Annotated[
        float,
        typer.Option(
            help="Mean rate before the first start.",
            envvar="KALSHI_SIMULATOR_HISTORY_TRADES_PER_SECOND",
            min=0.0,
        ),
    ] = 1.0,
    live_days: Annotated[
        int | None,
        typer.Option(
            help="Days of history in the live tier.",
            show_default="half",
            envvar="KALSHI_SIMULATOR_LIVE_DAYS",
            min=0,
        ),
    ] = None,
    markets: Annotated[
        int | None,
        typer.Option(
            help="Markets open at a time.",
            show_default="60",
            envvar="KALSHI_SIMULATOR_MARKETS",
            min=1,
        ),
    ] = None,
    dormant_markets: Annotated[
        int,
        typer.Option(
            help="Markets listed over REST that never trade, besides the others.",
            envvar="KALSHI_SIMULATOR_DORMANT_MARKETS",
            min=0,
        ),
    ] = 0,
    combo_births_per_second: Annotated[
        int,
        typer.Option(
            help="Load mode: combos created so many a second, and never heard of again.",
            envvar="KALSHI_SIMULATOR_COMBO_BIRTHS_PER_SECOND",
            min=0,
        ),
    ] = 0,
    deltas_per_second: Annotated[
        int,
        typer.Option(
            help="Load mode: top watched books up to this rate with deltas that cancel in pairs.",
            envvar="KALSHI_SIMULATOR_DELTAS_PER_SECOND",
            min=0,
        ),
    ] = 0,
    books_at_most: Annotated[
        int | None,
        typer.Option(
            help="Markets that one subscription of books may have (code 26 beyond).",
            show_default="no limit",
            envvar="KALSHI_SIMULATOR_BOOKS_AT_MOST",
            min=1,
        ),
    ] = None,
    commands_per_second: Annotated[
        int | None,
        typer.Option(
            help="Commands about one subscription a second (code 27 beyond).",
            show_default="no limit",
            envvar="KALSHI_SIMULATOR_COMMANDS_PER_SECOND",
            min=1,
        ),
    ] = None,
    begin_hours_ago: Annotated[
        float,
        typer.Option(
            help="How far in the past a new world begins; with a speed above 1 it catches up.",
            envvar="KALSHI_SIMULATOR_BEGIN_HOURS_AGO",
            min=0.0,
        ),
    ] = 0.0,
    credentials: Annotated[Path, _CREDENTIALS] = Path(".kalshi-simulator"),
    public_key: Annotated[list[str] | None, _PUBLIC_KEY] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder from which the same world goes on after a restart.",
            envvar="KALSHI_SIMULATOR_STATE",
        ),
    ] = None,
    read_tokens_per_second: Annotated[int, _READ_TOKENS] = 200,
) -> None:
    """Run the made-up exchange until interrupted."""
    options = serving.ServeOptions(
        host=host,
        rest_port=rest_port,
        ws_port=ws_port,
        seed=seed,
        speed_milli=round(speed * 1_000),
        trades_per_second=trades_per_second,
        messages_per_second=messages_per_second,
        history_days=history_days,
        history_trades_per_second=history_trades_per_second,
        live_days=live_days,
        markets=markets,
        credentials=credentials,
        public_keys=public_key or [],
        state=state,
        read_tokens_per_second=read_tokens_per_second,
        dormant_markets=dormant_markets,
        begin_hours_ago=begin_hours_ago,
        combo_births_per_second=combo_births_per_second,
        deltas_per_second=deltas_per_second,
        books_at_most=books_at_most,
        commands_per_second=commands_per_second,
    )
    try:
        asyncio.run(serving.serve(options))
    except (PortTaken, StateError, ValueError) as error:
        typer.echo(f"kalshi-simulator: {error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def replay(
    recording: Annotated[
        Path, typer.Argument(help="Recorded frames: .ndjson, .ndjson.gz or .ndjson.zst.")
    ],
    speed: Annotated[
        float,
        typer.Option(
            help="Times the recorded pace; 0 as fast as the client takes.",
            envvar="KALSHI_SIMULATOR_SPEED",
            min=0.0,
        ),
    ] = 1.0,
    host: Annotated[str, _HOST] = "127.0.0.1",
    rest_port: Annotated[int, _REST_PORT] = 8090,
    ws_port: Annotated[int, _WS_PORT] = 8091,
    credentials: Annotated[Path, _CREDENTIALS] = Path(".kalshi-simulator"),
    public_key: Annotated[list[str] | None, _PUBLIC_KEY] = None,
) -> None:
    """Serve a recording in place of the made-up market until interrupted."""
    options = replaying.ReplayOptions(
        recording, speed, host, rest_port, ws_port, credentials, public_key or []
    )
    try:
        asyncio.run(replaying.replay(options))
    except (PortTaken, RecordingError, ValueError) as error:
        typer.echo(f"kalshi-simulator: {error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def keygen(
    folder: Annotated[Path, typer.Argument(help="Where key_id and private_key.pem are put.")],
    kind: Annotated[str, typer.Option("--type", help="ed25519 or rsa")] = "ed25519",
) -> None:
    """Make a key pair; an existing one is kept."""
    if kind not in ("ed25519", "rsa"):
        typer.echo("kalshi-simulator: --type must be ed25519 or rsa", err=True)
        raise typer.Exit(2)
    made = ensure_credentials(folder, kind)
    typer.echo(f"{made.key_id} {made.private_key_path}")


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
