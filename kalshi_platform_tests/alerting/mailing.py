"""A small SMTP server on a real socket, with STARTTLS, that keeps what it is sent."""

import base64
import datetime
import email
import ipaddress
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class MailServer:
    """What it has taken, and how it answers."""

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[Message] = []
        self.recipients: list[list[str]] = []
        self.logins: list[tuple[str, str]] = []
        self.encrypted: list[bool] = []
        self.offers_tls = True
        self.password = "correct horse"
        self.refuses: str | None = None  # an address
        self.says_after_data = "250 2.0.0 kept"
        # What STARTTLS answers with; the client needs the other one.
        self.server_tls, self.client_tls = _contexts()
        self.greets = True


def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server with a certificate of its own making, and of a client that trusts it."""
    import tempfile

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both.pem"
        path.write_bytes(secret + pem)
        server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=pem.decode())


@contextmanager
def mail_server(*, tls_from_the_start: bool = False) -> Iterator[MailServer]:
    """A server on 127.0.0.1, gone afterwards."""
    state = MailServer()
    over = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        encrypted = tls_from_the_start

        def setup(self) -> None:
            if tls_from_the_start:
                self.request = state.server_tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            if not state.greets:
                over.wait(30)
                return
            self.say("220 test")
            wanted: list[str] = []
            while line := self.rfile.readline():
                verb, _, rest = line.decode().strip().partition(" ")
                match verb.upper():
                    case "EHLO":
                        self.say("250-test")
                        if state.offers_tls and not self.encrypted:
                            self.say("250-STARTTLS")
                        self.say("250-AUTH PLAIN")
                        self.say("250 8BITMIME")
                    case "STARTTLS":
                        self.say("220 go on")
                        self.request = state.server_tls.wrap_socket(self.request, server_side=True)
                        super().setup()
                        self.encrypted = True
                    case "AUTH":
                        words = base64.b64decode(rest.split()[1]).decode().split("\0")
                        state.logins.append((words[1], words[2]))
                        good = words[2] == state.password
                        self.say("235 yes" if good else f"535 5.7.8 {words[2]} is wrong")
                    case "RCPT":
                        address = rest.partition("<")[2].rstrip(">")
                        if address == state.refuses:
                            self.say("550 no such user")
                        else:
                            wanted.append(address)
                            self.say("250 ok")
                    case "DATA":
                        self.say("354 go on")
                        body = b""
                        while (part := self.rfile.readline()) != b".\r\n":
                            body += part
                        state.mails.append(email.message_from_bytes(body))
                        state.recipients.append(wanted)
                        state.encrypted.append(self.encrypted)
                        self.say(state.says_after_data)
                    case "QUIT":
                        self.say("221 bye")
                        return
                    case _:
                        self.say("250 ok")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, *_: object) -> None:
            """A client that does not trust the certificate hangs up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield state
        finally:
            over.set()
            server.shutdown()
            thread.join()
