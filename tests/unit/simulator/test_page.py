"""The page with the phone: everything escaped, and usable without a script."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

NASTY = """</p><script>alert('x')</script>&amp; "quotes" 😀 مرحبا \ud800"""
ESCAPED = "&lt;/p&gt;&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;amp; &quot;quotes&quot; 😀 مرحبا ?"


def test_everything_is_escaped(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        number = '+254"><i>1'
        await lab.json("POST", "/incoming", {"from": number, "text": NASTY})
        await lab.send(f"{number},+254711000001", "<b>x</b>")
        status, content_type, body = await lab.ask("GET", f"/?number={quote(number)}")
        html = body.decode()
        assert (status, content_type) == (200, "text/html; charset=utf-8")
        assert ESCAPED in html
        assert 'value="+254&quot;&gt;&lt;i&gt;1"' in html
        assert "<i>" not in html and "alert('x')" not in html

    play(scenario)


def test_the_form_works_without_a_script(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        status, _, body = await lab.ask("POST", "/", data={"number": "+254711000009", "text": "Habari 😀"})
        assert status == 200
        assert "Habari 😀" in body.decode() and "answered 200" in body.decode()
        assert b"from=%2B254711000009" in lab.receiver.posts[0][2]

    play(scenario)


def test_a_conversation_and_its_delivery(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("POST", "/incoming", {"from": "+254711000001", "text": "salio"})
        await lab.send("+254711000001", "Salio: KES 5", **{"from": "22000"})
        await lab.callbacks(2)
        state = await lab.json("GET", f"/phone?number={quote('+254711000001')}")
        said = [(m["mine"], m["text"], m["words"].rpartition(" · ")[2]) for m in state["messages"]]
        assert said == [(True, "salio", "answered 200"), (False, "Salio: KES 5", "Success")]
        assert state["requests"][0]["status"] == "201"
        assert state["counts"] == "1 requests · 1 messages accepted · 2 callbacks posted"
        later = await lab.json("GET", f"/phone?after={state['version']}&timeout_ms=1")
        assert later["version"] == state["version"]

    play(scenario)


def test_scripts_and_styles_come_from_here(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        async with lab.http.get(lab.simulator.url) as response:
            assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")
            assert "http" not in (await response.text()).replace(lab.simulator.url, "")
        for name in ("phone.css", "phone.js"):
            assert (await lab.ask("GET", f"/static/{name}"))[0] == 200

    play(scenario)


def test_the_phone_used_last_comes_first(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for number in ("+254711000001", "+254711000002", "+254711000001"):
            await lab.ask("POST", "/incoming", data=json.dumps({"from": number, "text": "Hi"}))
        assert (await lab.json("GET", "/phone"))["numbers"] == ["+254711000001", "+254711000002"]

    play(scenario)
