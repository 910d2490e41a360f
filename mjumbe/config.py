"""A process's own configuration, from its environment. Everything about SMS is in the app settings instead."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MOST_PROXIES = 10
AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # the first that is set is taken, as requests does it


class ConfigError(ValueError):
    """The environment cannot be used; the message names the variable and says what to set."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the processes read from their environment; secrets are not in its repr."""

    couch_url: str = field(repr=False)  # COUCH_URL: the server, the database, and a server admin's name and password
    data: Path = Path("data")  # MJUMBE_DATA: the vault's key file, the API's spool and copies
    vault_key: str | None = field(default=None, repr=False)  # MJUMBE_VAULT_KEY: keys or passphrases, the first encrypts
    trusted_proxies: int = 0  # MJUMBE_TRUSTED_PROXIES: how many proxies in front of the API set X-Forwarded-For

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> "Config":
        """The configuration in `environ`. Raises ConfigError."""
        couch_url = environ.get("COUCH_URL", "").strip()
        if not couch_url:
            raise ConfigError(
                "COUCH_URL is not set; it names the CouchDB and the database, for instance "
                "http://admin:password@127.0.0.1:5984/medic"
            )
        check_authorities(environ)
        return cls(
            couch_url=couch_url,
            data=data_directory(environ),
            vault_key=environ.get("MJUMBE_VAULT_KEY", "").strip() or None,
            trusted_proxies=_proxies(environ.get("MJUMBE_TRUSTED_PROXIES", "").strip() or "0"),
        )


def data_directory(environ: Mapping[str, str]) -> Path:
    """Where MJUMBE_DATA says that files are kept."""
    return Path(environ.get("MJUMBE_DATA", "").strip() or "data")


def authorities(environ: Mapping[str, str]) -> str | None:
    """The file or the directory with the authorities that certificates are checked by; None for the public ones."""
    return next((environ[name] for name in AUTHORITIES if environ.get(name)), None)


def check_authorities(environ: Mapping[str, str]) -> None:
    """Raise ConfigError for a file that requests could not use: it would say so at every request, as an OSError."""
    path = authorities(environ)
    if path is None or Path(path).is_dir():
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except FileNotFoundError:
        reason = "there is no such file"
    except ssl.SSLError:
        reason = "it holds no certificates in PEM"
    except OSError as error:
        reason = f"it cannot be read ({error.strerror})"
    else:
        return
    variable = next(name for name in AUTHORITIES if environ.get(name))
    raise ConfigError(
        f"{variable} is {path}: {reason}; set it to a PEM file with the authorities' certificates, or unset it for the "
        "public ones"
    )


def log_format(environ: Mapping[str, str]) -> str:
    """What MJUMBE_LOG asks for: `json`, or `console` for people. Raises ConfigError."""
    return _choice(environ, "MJUMBE_LOG", ("json", "console"), "console")


def log_level(environ: Mapping[str, str]) -> str:
    """What MJUMBE_LOG_LEVEL asks for: the least that is logged. Raises ConfigError."""
    return _choice(environ, "MJUMBE_LOG_LEVEL", ("debug", "info", "warning", "error"), "info")


def log_numbers(environ: Mapping[str, str]) -> str:
    """How MJUMBE_LOG_NUMBERS wants phone numbers in the log: `masked` or `full`. Raises ConfigError."""
    return _choice(environ, "MJUMBE_LOG_NUMBERS", ("masked", "full"), "masked")


def _choice(environ: Mapping[str, str], variable: str, choices: tuple[str, ...], default: str) -> str:
    value = environ.get(variable, "").strip().lower() or default
    if value not in choices:
        raise ConfigError(f"{variable} is {value!r}; expected {', '.join(choices[:-1])} or {choices[-1]}")
    return value


def _proxies(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) <= MOST_PROXIES):
        raise ConfigError(
            f"MJUMBE_TRUSTED_PROXIES is {value!r}; expected how many proxies stand before the API, 0 to {MOST_PROXIES}"
        )
    return int(value)
