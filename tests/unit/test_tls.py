"""CouchDB behind TLS, with a certificate that no public authority signed."""

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mjumbe.couch import Couch, UnavailableError

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


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, its key behind it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=mjumbe test")
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "authority.pem"
    path.write_bytes(certificate.public_bytes(pem) + secret)
    return path


@pytest.fixture(scope="module")
def url(authority: Path) -> Iterator[str]:
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


def test_certificates_are_checked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    couch = Couch(url)
    with pytest.raises(UnavailableError, match="SSLError"):
        couch.welcome()
    with pytest.raises(UnavailableError, match="SSLError"):
        couch.session_of({"Authorization": "Basic c29tZWJvZHk6cHc="})
