"""Africa's Talking's answers, byte for byte."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

KEY = {"apiKey": "right-key"}
AS_JSON = KEY | {"Accept": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SEND = "/version1/messaging"
ID = "ATXid_" + "0" * 32
PLAIN, XML, JSON = "text/plain; charset=utf-8", "application/xml; charset=utf-8", "application/json"
ROW = f'"cost":"KES 0.8000","messageId":"{ID}","messageParts":1'
WRONG = (401, PLAIN, b"The supplied authentication is invalid")


@pytest.fixture(autouse=True)
def known_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.africas_talking.secrets.token_hex", lambda size: "0" * 2 * size)


def sent(summary: str, *rows: str) -> bytes:
    return f'{{"SMSMessageData":{{"Message":"{summary}","Recipients":[{",".join(rows)}]}}}}'.encode()


def row(number: str) -> str:
    return f'{{"statusCode":101,"number":"{number}","status":"Success",{ROW}}}'


ONE = sent("Sent to 1/1 Total Cost: KES 0.8000", row("+254711000001"))
SENDING = [  # headers, body, the answer
    (AS_JSON, b"username=sandbox&to=%2B254711000001&message=Hi", (201, JSON, ONE)),
    (
        KEY,  # no Accept, or any: XML
        b"username=sandbox&to=%2B254711000001&message=Hi",
        (
            201,
            XML,
            b"<AfricasTalkingResponse><SMSMessageData><Message>Sent to 1/1 Total Cost: KES 0.8000</Message><Recipients>"
            b"<Recipient><statusCode>101</statusCode><number>+254711000001</number><status>Success</status>"
            b"<cost>KES 0.8000</cost><messageId>" + ID.encode() + b"</messageId><messageParts>1</messageParts>"
            b"</Recipient></Recipients></SMSMessageData></AfricasTalkingResponse>",
        ),
    ),
    (
        AS_JSON,  # an unescaped plus arrives as a space
        b"username=sandbox&to=+254711000001&message=Hi",
        (201, JSON, ONE),
    ),
    (
        AS_JSON,
        b"username=sandbox&to=%2B254711000001,%2B254711000002&message=Hi",
        (201, JSON, sent("Sent to 2/2 Total Cost: KES 1.6000", row("+254711000001"), row("+254711000002"))),
    ),
    (
        AS_JSON,
        b"username=sandbox&to=0711&message=Hi",
        (
            201,
            JSON,
            sent(
                "Sent to 0/1 Total Cost: 0",
                '{"statusCode":403,"number":"0711","status":"InvalidPhoneNumber","cost":"0","messageId":"None",'
                '"messageParts":0}',
            ),
        ),
    ),
    (
        AS_JSON,  # 71 characters of UCS-2: two parts
        b"username=sandbox&to=%2B254711000001&message=" + b"%D0%B6" * 71,
        (
            201,
            JSON,
            sent(
                "Sent to 1/1 Total Cost: KES 1.6000",
                row("+254711000001").replace("0.8000", "1.6000").replace('Parts":1', 'Parts":2'),
            ),
        ),
    ),
    (AS_JSON, b"username=sandbox&to=%2B254711000001&message=Hi&from=22000", (201, JSON, ONE)),
    (AS_JSON, b"username=sandbox&to=%2B254711000001&message=Hi&from=", (201, JSON, ONE)),
    (AS_JSON, b"username=sandbox&to=%2B254711000001&message=Hi&from=STRANGER", (201, JSON, sent("InvalidSenderId"))),
    (
        KEY,
        b"username=sandbox&to=%2B254711000001&message=Hi&from=STRANGER",
        (
            201,
            XML,
            b"<AfricasTalkingResponse><SMSMessageData><Message>InvalidSenderId</Message><Recipients></Recipients>"
            b"</SMSMessageData></AfricasTalkingResponse>",
        ),
    ),
    (
        {},
        b"username=sandbox&to=%2B254711000001&message=Hi",
        (401, PLAIN, b"Request is missing required HTTP header 'apiKey'"),
    ),
    ({"apiKey": "wrong-one"}, b"username=sandbox&to=%2B254711000001&message=Hi", WRONG),
    (AS_JSON, b"username=somebody&to=%2B254711000001&message=Hi", WRONG),
    (
        AS_JSON,
        b"to=%2B254711000001&message=Hi",
        (400, PLAIN, b"Request is missing required form field 'username'"),
    ),
    (AS_JSON, b"username=sandbox&message=Hi", (400, PLAIN, b"Request is missing required form field 'to'")),
    (
        AS_JSON,
        b"username=sandbox&to=%2B254711000001&message=",
        (400, PLAIN, b"Request is missing required form field 'message'"),
    ),
    (
        AS_JSON | {"Content-Type": "application/json"},
        b"{}",
        (
            415,
            PLAIN,
            b"The request's Content-Type is not supported. Expected:\napplication/x-www-form-urlencoded",
        ),
    ),
]


@pytest.mark.parametrize(("headers", "body", "answer"), SENDING)
def test_send_form(play: Any, headers: dict[str, str], body: bytes, answer: tuple[int, str, bytes]) -> None:
    async def scenario(lab: Any) -> None:
        assert await lab.ask("POST", SEND, headers=FORM | headers, data=body) == answer

    play(scenario, reports_url=None)


BULK = '{"username":"mine","message":"Hi","phoneNumbers":["+254711000001"]%s}'
MALFORMED = b"The request content was malformed:\n"
BULK_SENDING = [
    ("mine", BULK % "", (201, JSON, ONE)),
    ("mine", BULK % ',"senderId":"22000","enqueue":true', (201, JSON, ONE)),
    ("mine", BULK % ',"senderId":"STRANGER"', (201, JSON, sent("InvalidSenderId"))),
    ("yours", BULK % "", WRONG),
    ("sandbox", BULK.replace("mine", "sandbox") % "", (404, PLAIN, b"The requested resource could not be found.")),
    ("mine", "{", (400, PLAIN, MALFORMED + b"not JSON")),
    ("mine", "[]", (400, PLAIN, MALFORMED + b"Object expected")),
    ("mine", '{"username":"mine"}', (400, PLAIN, MALFORMED + b"Object is missing required member 'message'")),
    (
        "mine",
        '{"username":"mine","message":"Hi","phoneNumbers":"+254711000001"}',
        (400, PLAIN, MALFORMED + b"Object is missing required member 'phoneNumbers'"),
    ),
]


@pytest.mark.parametrize(("username", "body", "answer"), BULK_SENDING)
def test_send_bulk(play: Any, username: str, body: str, answer: tuple[int, str, bytes]) -> None:
    async def scenario(lab: Any) -> None:
        headers = AS_JSON | {"Content-Type": "application/json"}
        assert await lab.ask("POST", f"{SEND}/bulk", headers=headers, data=body) == answer

    play(scenario, username=username, reports_url=None)


@pytest.mark.parametrize(("key", "status"), [("first", 201), ("second", 201), ("third", 401), ("wrong", 401)])
def test_only_the_given_keys(play: Any, key: str, status: int) -> None:
    async def scenario(lab: Any) -> None:
        data = {"username": "sandbox", "to": "+254711000001", "message": "Hi"}
        answer = await lab.ask("POST", SEND, headers={"apiKey": key}, data=data)
        assert answer[0] == status
        [entry] = (await lab.json("GET", "/requests"))["requests"]
        assert entry["key"] == ("right" if status == 201 else "wrong")
        assert key not in json.dumps(entry["headers"])

    play(scenario, keys=("first", "second"))


def test_balance(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        path = "/version1/user?username=sandbox"
        assert await lab.ask("GET", path, headers=AS_JSON) == (200, JSON, b'{"UserData":{"balance":"KES 2.50"}}')
        await lab.send("+254711000001", "a" * 161)
        assert (await lab.ask("GET", path, headers=AS_JSON))[2] == b'{"UserData":{"balance":"KES 0.90"}}'
        _, _, body = await lab.send("+254711000001,+254711000002")
        codes = [recipient["statusCode"] for recipient in json.loads(body)["SMSMessageData"]["Recipients"]]
        assert codes == [101, 405]
        answer = (
            200,
            XML,
            b"<AfricasTalkingResponse><UserData><balance>KES 0.10</balance></UserData></AfricasTalkingResponse>",
        )
        assert await lab.ask("GET", path, headers=KEY) == answer
        assert await lab.ask("GET", path, headers={"apiKey": "wrong"}) == WRONG
        assert (await lab.ask("GET", "/version1/user", headers=KEY))[0] == 400

    play(scenario, balance=Decimal("2.50"))


def test_inbox(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        date = "2017-05-03T06:04:45Z"
        for text in ("one", "two & <three>", ""):
            body = {"from": "+254711000001", "text": text, "linkId": "link", "date": date}
            assert (await lab.json("POST", "/incoming", body))["answers"] == []
        path = f"{SEND}?username=sandbox"
        messages = [
            {"linkId": "link", "text": text, "to": "22000", "id": n, "date": date, "from": "+254711000001"}
            for n, text in [(1, "one"), (2, "two & <three>"), (3, "")]
        ]
        for after, expected in [(0, messages), (1, messages[1:]), (3, [])]:
            exact = json.dumps({"SMSMessageData": {"Messages": expected}}, separators=(",", ":")).encode()
            assert await lab.ask("GET", f"{path}&lastReceivedId={after}", headers=AS_JSON) == (200, JSON, exact)
        assert (await lab.ask("GET", f"{path}&lastReceivedId=1", headers=KEY))[2] == (
            b"<AfricasTalkingResponse><SMSMessageData><Messages>"
            b"<Message><linkId>link</linkId><text>two &amp; &lt;three&gt;</text><to>22000</to><id>2</id>"
            b"<date>2017-05-03T06:04:45Z</date><from>+254711000001</from></Message>"
            b"<Message><linkId>link</linkId><text></text><to>22000</to><id>3</id>"
            b"<date>2017-05-03T06:04:45Z</date><from>+254711000001</from></Message>"
            b"</Messages></SMSMessageData></AfricasTalkingResponse>"
        )
        assert (await lab.ask("GET", f"{path}&lastReceivedId=x", headers=AS_JSON))[0] == 400

    play(scenario, incoming_url=None)


def test_inbox_in_xml_survives_any_text(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("POST", "/incoming", {"from": "+254711000001", "text": "a\x00b\ud800c😀"})
        _, _, body = await lab.ask("GET", f"{SEND}?username=sandbox", headers=KEY)
        assert "<text>a\N{REPLACEMENT CHARACTER}b?c😀</text>" in body.decode()

    play(scenario, incoming_url=None)


def test_a_subscription_needs_no_checkout_token(play: Any) -> None:
    """The service's newer clients have none."""

    async def scenario(lab: Any) -> None:
        form = {"username": "sandbox", "shortCode": "22000", "keyword": "news", "phoneNumber": "+254711000001"}
        assert await lab.ask("POST", "/version1/subscription/create", headers=KEY, data=form) == (
            201,
            JSON,
            b'{"status":"Success","description":"Waiting for user input"}',
        )

    play(scenario)


def test_subscriptions(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        status, _, body = await lab.ask("POST", "/checkout/token/create", data={"phoneNumber": "+254711000001"})
        token = json.loads(body)
        assert (status, token["description"], token["token"][:6]) == (201, "Success", "CkTkn_")
        subscription = {
            "username": "sandbox",
            "shortCode": "22000",
            "keyword": "news",
            "phoneNumber": "+254711000001",
        }
        create, delete = "/version1/subscription/create", "/version1/subscription/delete"
        _, _, body = await lab.ask("POST", "/checkout/token/create", data={"phoneNumber": "+254711000002"})
        of_another = subscription | {"checkoutToken": json.loads(body)["token"]}
        refused = b'{"status":"Failed","description":"Invalid checkout token"}'
        assert (await lab.ask("POST", create, headers=KEY, data=of_another))[2] == refused
        with_token = subscription | {"checkoutToken": token["token"]}
        assert await lab.ask("POST", create, headers=KEY, data=with_token) == (
            201,
            JSON,
            b'{"status":"Success","description":"Waiting for user input"}',
        )
        assert (await lab.ask("POST", create, headers=KEY, data=with_token))[2] == (
            b'{"status":"Failed","description":"Invalid checkout token"}'  # a token serves once
        )
        path = "/version1/subscription?username=sandbox&shortCode=22000&keyword=news"
        rows = json.loads((await lab.ask("GET", path, headers=KEY))[2])["responses"]
        assert [(row["id"], row["phoneNumber"]) for row in rows] == [(1, "+254711000001")]
        assert (await lab.ask("GET", f"{path}&lastReceivedId=1", headers=KEY))[2] == b'{"responses":[]}'
        assert (await lab.ask("POST", delete, headers=KEY, data=subscription))[2] == (
            b'{"status":"Success","description":"Succeeded"}'
        )
        assert (await lab.ask("POST", delete, headers=KEY, data=subscription))[2] == (
            b'{"status":"Failed","description":"Subscription not found"}'
        )
        await lab.callbacks(2)
        assert [body for _, _, body in lab.receiver.posts] == [
            b"phoneNumber=%2B254711000001&shortCode=22000&keyword=news&updateType=addition",
            b"phoneNumber=%2B254711000001&shortCode=22000&keyword=news&updateType=deletion",
        ]

    play(scenario)


def test_whom_the_service_takes_nothing_for_costs_nothing(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        answer = json.loads((await lab.send("+254711000001,+254711099403"))[2])["SMSMessageData"]
        assert answer["Message"] == "Sent to 1/2 Total Cost: KES 0.8000"
        assert [recipient["statusCode"] for recipient in answer["Recipients"]] == [101, 403]
        balance = await lab.ask("GET", "/version1/user?username=sandbox", headers=AS_JSON)
        assert b"KES 0.80" in balance[2]
        # What is there to the last cent is enough.
        assert json.loads((await lab.send("+254711000001"))[2])["SMSMessageData"]["Recipients"][0]["statusCode"] == 101
        assert json.loads((await lab.send("+254711000001"))[2])["SMSMessageData"]["Recipients"][0]["statusCode"] == 405

    play(scenario, balance=Decimal("1.60"))


def test_an_inbox_comes_by_the_hundred(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for number in range(101):
            await lab.json("POST", "/incoming", {"from": "+254711000001", "text": str(number)})
        path = "/version1/messaging?username=sandbox&lastReceivedId="
        texts = []
        for after in (0, 100):
            rows = json.loads((await lab.ask("GET", f"{path}{after}", headers=AS_JSON))[2])["SMSMessageData"][
                "Messages"
            ]
            texts.append([row["text"] for row in rows])
        assert texts == [[str(number) for number in range(100)], ["100"]]

    play(scenario)
