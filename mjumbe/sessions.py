"""HTTP sessions that take nothing from the environment unasked."""

import os

import requests


def plain_session() -> requests.Session:
    """A session without the environment's proxies and without a .netrc, which would log it in where we do ourselves.

    Certificates are checked by the authorities in REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE), as requests does it.
    """
    session = requests.Session()
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    return session
