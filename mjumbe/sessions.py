"""HTTP sessions that take nothing from the environment unasked."""

import os

import requests

from mjumbe.config import authorities


def plain_session() -> requests.Session:
    """A session without the environment's proxies and without a .netrc, which would log it in where we do ourselves.

    Certificates are checked by the authorities in REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE), as requests does it.
    `config.check_authorities` looks at the start whether it can be read.
    """
    session = requests.Session()
    session.trust_env = False
    session.verify = authorities(os.environ) or True
    return session
