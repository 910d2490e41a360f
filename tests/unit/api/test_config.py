"""The process's environment."""

from pathlib import Path

import certifi
import pytest

from mjumbe.config import Config, ConfigError, authorities, log_format, log_numbers

URL = "http://admin:s3cr3t@127.0.0.1:5984/medic"


def test_defaults() -> None:
    config = Config.load({"COUCH_URL": f" {URL} ", "MJUMBE_VAULT_KEY": "", "MJUMBE_DATA": ""})
    assert config == Config(couch_url=URL, data=Path("data"), vault_key=None, trusted_proxies=0)


def test_all() -> None:
    environ = {
        "COUCH_URL": URL,
        "MJUMBE_VAULT_KEY": "k3y",
        "MJUMBE_DATA": "/var/lib/mjumbe",
        "MJUMBE_TRUSTED_PROXIES": "2",
    }
    config = Config.load(environ)
    assert config == Config(URL, Path("/var/lib/mjumbe"), "k3y", 2)
    assert config.vault_key == "k3y"
    assert "s3cr3t" not in repr(config)
    assert "k3y" not in repr(config)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "COUCH_URL is not set"),
        ({"COUCH_URL": URL, "MJUMBE_TRUSTED_PROXIES": "-1"}, "MJUMBE_TRUSTED_PROXIES is '-1'"),
        ({"COUCH_URL": URL, "MJUMBE_TRUSTED_PROXIES": "11"}, "0 to 10"),
        ({"COUCH_URL": URL, "MJUMBE_TRUSTED_PROXIES": "one"}, "MJUMBE_TRUSTED_PROXIES is 'one'"),
    ],
)
def test_wrong_values_are_named(environ: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Config.load(environ)


def test_the_log() -> None:
    assert log_format({}) == "console"
    assert log_format({"MJUMBE_LOG": "JSON"}) == "json"
    with pytest.raises(ConfigError, match="MJUMBE_LOG is 'xml'; expected json or console"):
        log_format({"MJUMBE_LOG": "xml"})
    assert log_numbers({}) == "masked"
    assert log_numbers({"MJUMBE_LOG_NUMBERS": "FULL"}) == "full"
    with pytest.raises(ConfigError, match="MJUMBE_LOG_NUMBERS is 'yes'; expected masked or full"):
        log_numbers({"MJUMBE_LOG_NUMBERS": "yes"})


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nope", "there is no such file; set it to a PEM file"),
        ("empty", "it holds no certificates in PEM; set it"),
        ("text", "it holds no certificates in PEM; set it"),
        ("text/below", "it cannot be read (Not a directory); set it"),
    ],
)
def test_authorities_that_cannot_be_used(variable: str, name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(ConfigError) as error:
        Config.load({"COUCH_URL": URL, variable: str(tmp_path / name)})
    assert f"{variable} is {tmp_path / name}: {says}" in str(error.value)


@pytest.mark.parametrize("name", [".", "public.pem"])
def test_authorities_that_can_be_used(name: str, tmp_path: Path) -> None:
    (tmp_path / "public.pem").write_bytes(Path(certifi.where()).read_bytes())
    environ = {"REQUESTS_CA_BUNDLE": str(tmp_path / name), "CURL_CA_BUNDLE": "/not/asked"}
    assert Config.load({"COUCH_URL": URL, **environ})
    assert authorities(environ) == str(tmp_path / name)
