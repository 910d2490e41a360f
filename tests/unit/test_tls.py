"""TLS, with a certificate that no public authority signed: CouchDB behind it, and services whose connections break."""

import datetime
import ipaddress
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mjumbe.couch import Couch, UnavailableError
from mjumbe.gateways.base import Failure, FencedError, Http, Outcome, SendError
from mjumbe.http_sessions import plain_session

DAY = datetime.timedelta(days=1)


class CouchDB(BaseHTTPRequestHandler):
    """Lets everybody in, and greets."""

    def do_GET(self) -> None:
        self._answer({"couchdb": "Welcome", "version": "3.4.2", "userCtx": {"name": "somebody", "roles": []}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"ok": True}, ("Set-Cookie", "AuthSession=one; Max-Age=600; Path=/; HttpOnly"))

    def _answer(self, content: object, *headers: tuple[str, str]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def certify(folder: Path, address: str = "127.0.0.1", days: float = 0) -> Path:
    """A certificate for an address that signs itself, its key behind it; good for a day around now and so many days."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=mjumbe test")
    middle = datetime.datetime.now(datetime.UTC) + days * DAY
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), middle - DAY, middle + DAY)
        .add_extension(addresses, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "authority.pem"
    path.write_bytes(certificate.public_bytes(pem) + secret)
    return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certify(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def url(authority: Path) -> Iterator[str]:
    with served(authority) as url:
        yield url


@contextmanager
def served(authority: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), CouchDB)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://admin:pw@127.0.0.1:{server.server_address[1]}/medic"
    server.shutdown()
    server.server_close()


def test_an_authority_of_the_operators_own(url: str, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    couch = Couch(url)
    assert couch.welcome()["version"] == "3.4.2"
    assert couch.session_of({"Authorization": "Basic c29tZWJvZHk6cHc="}) == ("somebody", ())


def test_couchdb_is_asked_by_no_proxy_and_with_no_password_of_the_machine_s(
    url: str, authority: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both are the environment's, for what else runs there."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login stranger password pw\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with socket.socket() as nobody:  # bound, and it does not listen
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        couch = Couch(url)
        assert couch.welcome()["version"] == "3.4.2"
        assert couch.session_of({"Cookie": "AuthSession=one"}) == ("somebody", ())
    session = plain_session()
    request = session.prepare_request(requests.Request("GET", url.replace("admin:pw@", "")))
    assert "Authorization" not in request.headers


def test_certificates_are_checked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    couch = Couch(url)
    with pytest.raises(UnavailableError, match="its certificate is not trusted: self-signed certificate; REQUESTS_CA_"):
        couch.welcome()
    with pytest.raises(UnavailableError, match="SSLError"):
        couch.session_of({"Authorization": "Basic c29tZWJvZHk6cHc="})


# ---- services


@contextmanager
def service(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A service that does with its one connection what `talk` says."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                talk(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
    thread.join(30)


def failed(url: str, **timeouts: float) -> Outcome:
    with pytest.raises(SendError) as failure:
        Http(**{"connect_timeout": 30, "read_timeout": 30, **timeouts}, pool=1).request("POST", url, data="the end")
    return failure.value.outcome


def test_an_answer_that_is_no_tls_leaves_a_written_request_in_doubt(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def talk(connection: socket.socket) -> None:
        raw = socket.socket(fileno=os.dup(connection.fileno()))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(authority)
        with raw, tls.wrap_socket(connection, server_side=True) as encrypted:
            data = b""
            while not data.endswith(b"end"):
                data += encrypted.recv(65536)
            raw.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with service(talk) as url:
        assert failed(url).failure is Failure.AMBIGUOUS


def test_nothing_is_written_behind_the_fence(url: str, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fence() -> None:
        raise FencedError("not ours any more")

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with pytest.raises(FencedError):
        Http(connect_timeout=30, read_timeout=30, pool=1, fence=fence).request("POST", url, data="the end")


def test_without_tls_nothing_is_written() -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.recv(1)

    with service(hang_up) as url:
        assert failed(url).failure is Failure.RETRY


def test_a_handshake_that_takes_too_long() -> None:
    done = threading.Event()

    def say_nothing(connection: socket.socket) -> None:
        done.wait(30)

    with service(say_nothing) as url:
        assert failed(url, connect_timeout=0.3).failure is Failure.RETRY
        done.set()


def test_a_certificate_that_is_not_trusted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    words = "its certificate is not trusted: self-signed certificate"
    variables = "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names the authorities that are"
    assert failed(url) == Outcome(f"no connection ({words}; {variables})", failure=Failure.RETRY, spent=False)


@pytest.mark.parametrize(
    ("address", "days", "words"),
    [
        ("127.0.0.1", -2, "certificate has expired; is this machine's clock right?"),
        ("127.0.0.1", 2, "certificate is not yet valid; is this machine's clock right?"),
        ("127.0.0.2", 0, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
def test_a_certificate_for_which_no_authority_helps(
    address: str, days: float, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = certify(tmp_path, address, days)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with served(authority) as url:
        assert failed(url).details == f"no connection (its certificate is not trusted: {words})"
