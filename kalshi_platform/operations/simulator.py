"""The simulator that `up` starts when no key is configured, as the exchange of other commands."""

from kalshi_platform.operations.errors import Refusal
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.recorded_exchange import claim_database, claim_home, exchange_name

HOST = "127.0.0.1"


def simulator_rest_url(settings: Settings) -> str:
    """Where the simulator that belongs to these settings answers."""
    return f"http://{HOST}:{settings.simulator_rest_port}/trade-api/v2"


def simulator_settings(settings: Settings) -> Settings:
    """The settings with the simulator as the configured exchange.

    Raises:
        Refusal: the simulator has not run with this home folder yet.
    """
    credentials = settings.simulator_folder / "credentials"
    try:
        key_id = (credentials / "key_id").read_text().strip()
    except FileNotFoundError:
        raise Refusal(
            "No exchange is configured and the simulated one has not run here yet: set "
            "KALSHI_API_KEY_ID and KALSHI_PRIVATE_KEY_PATH, or start `kalshi-platform up` first."
        ) from None
    return settings.model_copy(
        update={
            "rest_url": simulator_rest_url(settings),
            "ws_url": f"ws://{HOST}:{settings.simulator_ws_port}/trade-api/ws/v2",
            "api_key_id": key_id,
            "private_key_path": credentials / "private_key.pem",
            "simulated_exchange": True,
        }
    )


def with_exchange(settings: Settings) -> Settings:
    """The settings with an exchange to ask: the configured one, else the simulator.

    Raises:
        Refusal: neither is there, or the key has no file.
    """
    if settings.api_key_id is None:
        return simulator_settings(settings)
    if settings.private_key_path is None:
        raise Refusal(
            "KALSHI_API_KEY_ID is set but KALSHI_PRIVATE_KEY_PATH is not: set it to the PEM file "
            "of that key."
        )
    return settings


def exchange_of(settings: Settings) -> str:
    """The name under which a home and a database remember whose data they hold."""
    return exchange_name(settings.rest_url, simulated=settings.simulated)


def claim(settings: Settings) -> None:
    """Hold the home folder and the database to one exchange.

    Raises:
        OtherExchange: they hold data of another one.
    """
    claim_home(settings.home.absolute(), exchange_of(settings))
    with connect(settings.url) as connection:
        claim_database(connection, exchange_of(settings))
