"""How the house is, part by part: the checks that the API's `/readyz` and `mjumbe doctor` share."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from mjumbe import documents, gateways, setup, states
from mjumbe.couch import Couch, CouchError, Database, LoginError, NotFoundError, TroubleError, UnavailableError
from mjumbe.credentials import CredentialError
from mjumbe.live_settings import LiveSettings
from mjumbe.log import mask_numbers
from mjumbe.settings import Settings
from mjumbe.status import LEADER_ID, SentinelStatus, ServiceStatus, read_status

SILENT_SECONDS = 30.0  # a sentinel that has not been heard of for so long is not taken for running

AWAY = "Not known while CouchDB cannot be reached."
LOCKED_OUT = "Not known while CouchDB does not let us in."
WITHOUT_COUCHDB = ("disk", "vault key", "spool")  # checks of this machine
Said = tuple[bool, str]
"""Whether a part is well, and a sentence: with what to do when it is not."""


@dataclass(frozen=True, slots=True)
class Check:
    """How one part is: `says` is a sentence, with what to do when it is not `ok`."""

    name: str
    ok: bool
    says: str


@dataclass(frozen=True, slots=True)
class House:
    """What the checks look at. `credential` and `vault_problems` raise CredentialError when the vault has no key."""

    couch: Couch
    indexes: setup.Indexes
    settings: LiveSettings
    credential: Callable[[str], str | None]
    vault_problems: Callable[[], list[str]]


def inspect(checks: Iterable[tuple[str, Callable[[], Said]]]) -> Iterator[Check]:
    """The results of checks; what keeps one from being made is a result too.

    They are without phone numbers: everybody may read them, and some quote what a service said. When CouchDB cannot be
    reached it is not asked again: each would wait for it anew.
    """
    unknown = ""
    for name, check in checks:
        if unknown and name not in WITHOUT_COUCHDB:
            yield Check(name, False, unknown)
            continue
        try:
            ok, says = check()
        except TroubleError as error:  # what it cannot do now is not all that it is asked
            ok, says = False, sentence(str(error) if name == "couchdb" else f"not known: {error}")
        except UnavailableError as error:
            unknown = AWAY
            ok, says = False, f"{error}: start it, or correct COUCH_URL." if name == "couchdb" else unknown
        except LoginError as error:
            unknown = LOCKED_OUT
            ok, says = False, sentence(error.reason) if name == "couchdb" else unknown
        except CouchError as error:
            ok, says = False, sentence(f"not known: {error}")
        except CredentialError as error:
            ok, says = False, sentence(str(error))
        yield Check(name, ok, mask_numbers(says))


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def couchdb(house: House) -> Said:
    """CouchDB answers, and our databases are there."""
    version = house.couch.welcome().get("version")
    missing = [database.name for database in house.couch.databases if not exists(database)]
    if missing:
        says = f"CouchDB {version} answers; the databases {', '.join(missing)} are not there"
        return False, f"{says}: the API and the sentinel make them when they start, if COUCH_URL names the right one."
    return True, f"CouchDB {version} answers, and all databases are there."


def exists(database: Database) -> bool:
    """Whether the database is there. Raises UnavailableError."""
    try:
        database.info()
    except NotFoundError:
        return False
    return True


def views(house: House) -> Said:
    """All indexes are built."""
    unbuilt = house.indexes.unbuilt()
    if unbuilt:
        return False, f"The views of {', '.join(unbuilt)} are being built; this takes a while on a large database."
    return True, "All views are built."


def vault(house: House) -> Said:
    """Every credential can be read."""
    problems = house.vault_problems()
    if problems:
        return False, " ".join(sentence(problem) for problem in problems)
    return True, "The vault's key opens every credential."


def sentinel(house: House) -> Said:
    """A sentinel leads."""
    status = leader(house.couch)
    if status is None:
        return False, "No sentinel has run yet; start one with `mjumbe sentinel`."
    age = heartbeat_age(status, states.now())
    if status.released:
        return False, f"The sentinel stopped at {status.heartbeat}; start it with `mjumbe sentinel`."
    if age is None or age > SILENT_SECONDS:
        return False, f"The sentinel's last heartbeat was at {status.heartbeat}; look into its log and start it again."
    return True, f"The sentinel's last heartbeat was {max(age, 0):.0f} s ago."


def leader(couch: Couch) -> SentinelStatus | None:
    """What the leading sentinel says of itself, None when there never was one. Raises UnavailableError."""
    doc = couch.sentinel.get(LEADER_ID)
    return read_status(doc) if doc else None


def heartbeat_age(status: SentinelStatus, now: datetime) -> float | None:
    """Seconds since the heartbeat."""
    at = documents.read_moment(status.heartbeat)
    return None if at is None else (documents.milliseconds(now) - at) / 1000


def service(house: House) -> Said:
    """The services in use are configured, and none of them is held. One may be switched off while others are not."""
    values = house.settings.refresh()
    status = leader(house.couch)
    reports = status.services if status else {}
    names = values.sms.order
    in_use = [name for name in names if gateways.is_enabled(name, values)] or names
    said = [_one_service(house, name, values, reports) for name in in_use]
    none = [] if any(ok for ok, _ in said) else ["No active SMS service."]
    off = [f"The service {name} is not used: {gateways.switched_off(name)}." for name in names if name not in in_use]
    return all(ok for ok, _ in said), " ".join([*none, *(words for _, words in said), *off])


def _one_service(house: House, name: str, values: Settings, reports: Mapping[str, ServiceStatus]) -> Said:
    troubles = gateways.missing(name, values, house.credential)
    if troubles:
        return False, sentence(f"the service {name} cannot be used: {'; '.join(troubles)}")
    report = reports.get(name, ServiceStatus())
    if report.held:
        ask = f"`mjumbe gateways test {name} NUMBER` sends a message by it, which frees it when it works"
        if name == gateways.PHONE_GATEWAY:
            ask = "is it on, in reach, and set to this server?"
        return False, sentence(f"the service {name} is held since {report.since}: {report.reason}; {ask}")
    return True, f"The service {name} is configured."


def settings(house: House) -> Said:
    """Every setting is in force."""
    house.settings.refresh()
    problems = house.settings.problems
    if problems:
        return False, f"Wrong settings, whose values before stay in force: {'; '.join(map(str, problems))}."
    return True, "All settings are in force."


CHECKS: Mapping[str, Callable[[House], Said]] = {
    "couchdb": couchdb,
    "views": views,
    "vault": vault,
    "sentinel": sentinel,
    "service": service,
    "settings": settings,
}
