"""The simulated phone in a real browser: what people see and touch."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import leaks
from tests.integration.sentinel.world import SOON, World, number

ANSWER = leaks.text("We are <b>here</b> & listening, نعم 😀")
expect.set_options(timeout=SOON * 1000)


@pytest.fixture(scope="module", autouse=True)
def replies(world: World) -> None:
    world.set(sms={"replies": [{"keyword": "HELP", "message": ANSWER}]})


@pytest.fixture
def page(browser: Browser, world: World) -> Iterator[Page]:
    """The page with a phone of its own, at 360 pixels; no error in its script passes unseen."""
    assert world.api.url
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 360, "height": 640}, base_url=world.simulator.url)
    page.set_default_timeout(SOON * 1000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("/")
    use(page, number())
    yield page
    page.close()
    assert not errors


def use(page: Page, phone: str) -> None:
    page.get_by_label("Number").fill(phone)
    page.get_by_role("button", name="Use").click()
    expect(page.get_by_role("heading", name=f"Phone {phone}")).to_be_visible()


def test_who_types_a_keyword_reads_the_answer(page: Page) -> None:
    page.get_by_label("SMS to").press_sequentially("help")
    page.keyboard.press("Enter")
    messages = page.get_by_role("log").get_by_role("listitem")
    expect(messages).to_have_count(2)
    expect(messages.nth(0)).to_contain_text("answered 200")
    expect(messages.nth(1)).to_contain_text(ANSWER)
    expect(messages.nth(1)).to_contain_text("Success")
    expect(page.get_by_label("SMS to")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") == 360, "nothing is cut off on a narrow screen"


def test_what_was_written_is_there_when_one_comes_back(page: Page) -> None:
    page.get_by_label("SMS to").fill("line one\nline <i>two</i>")
    page.get_by_role("button", name="Send").click()
    message = page.get_by_role("log").get_by_role("listitem")
    expect(message).to_contain_text("answered 200")
    page.reload()
    expect(message.locator("p")).to_have_text("line one\nline <i>two</i>", use_inner_text=True)


def test_a_switch_changes_the_service_and_shows_what_others_set(page: Page, world: World) -> None:
    switch = page.get_by_label("makes delivery reports")
    expect(switch).to_be_checked()
    with page.expect_response("**/control"):
        switch.uncheck()
    assert world.simulator.ask("GET", "/control")["reports"] is False
    world.simulator.control(reports=True)
    expect(switch).to_be_checked()


def test_what_could_not_be_sent_is_kept(page: Page) -> None:
    text = page.get_by_label("SMS to")
    text.fill("Is anybody there?")
    page.context.set_offline(True)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status")).to_have_text("The simulator does not answer.")
    expect(text).to_have_value("Is anybody there?")
    page.context.set_offline(False)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("log").get_by_role("listitem")).to_contain_text("answered 200")
    expect(text).to_be_empty()
    expect(page.get_by_role("status")).to_be_empty()
