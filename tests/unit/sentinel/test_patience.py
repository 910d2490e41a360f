"""What the log says of a long wait for CouchDB."""

from structlog.testing import capture_logs

from mjumbe.couch import UnavailableError
from sentinel.patience import Patience


def test_each_reason_is_said_once_and_that_it_is_over() -> None:
    patience = Patience("changes wait for CouchDB")
    with capture_logs() as logs:
        patience.is_over()
        for reason in ("refused", "refused", "no answer", "no answer"):
            patience.waits(UnavailableError(reason))
        patience.is_over()
        patience.is_over()
        patience.waits(UnavailableError("refused"))
    waits = [(line["event"], line.get("reason"), line["log_level"]) for line in logs]
    assert waits == [
        ("changes wait for CouchDB", "refused", "warning"),
        ("changes wait for CouchDB", "no answer", "warning"),
        ("no longer: changes wait for CouchDB", None, "info"),
        ("changes wait for CouchDB", "refused", "warning"),
    ]
