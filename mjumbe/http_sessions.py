"""HTTP sessions that take nothing from the environment unasked, and what keeps their requests from an answer."""

import os
import ssl

import requests
from urllib3.exceptions import ProxyError

from mjumbe.config import AUTHORITIES, authorities

# By OpenSSL's code (X509_V_ERR_… in its x509_vfy.h), where no authority helps: a certificate's time, and its name.
CLOCK = "; is this machine's clock right?"
ADVICE = {9: CLOCK, 10: CLOCK, 62: "", 64: ""}


def plain_session() -> requests.Session:
    """A session without the environment's proxies and without a .netrc, which would log it in where we do ourselves.

    Certificates are checked by the authorities in REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE), as requests does it.
    `config.check_authorities` looks at the start whether it can be read.
    """
    session = requests.Session()
    session.trust_env = False
    session.verify = authorities(os.environ) or True
    return session


def why(error: requests.exceptions.RequestException) -> str:
    """What kept a request from its answer, in the system's words where there are any: "Connection refused"."""
    given = error.args[0] if error.args else None
    reason = getattr(given, "reason", given)  # urllib3's, in its "Max retries exceeded"
    if isinstance(reason, ProxyError):
        return f"by the proxy: {_cause(reason.original_error) or type(error).__name__}"
    return _cause(reason) or type(error).__name__


def _cause(reason: object) -> str | None:
    """The words of the system's error that urllib3 made another of; None when there is none."""
    made_of = (reason, getattr(reason, "__cause__", None), *getattr(reason, "args", ()))
    found = next((error for error in made_of if isinstance(error, OSError)), None)
    if isinstance(found, ssl.SSLCertVerificationError):
        advice = ADVICE.get(found.verify_code, f"; {' or '.join(AUTHORITIES)} names the authorities that are")
        return f"its certificate is not trusted: {found.verify_message.rstrip('.')}{advice}"
    return (found.strerror or str(found)) if found else None
