"""The page in a real browser: what it shows, as things happen; by hand, by keyboard, in words."""

import math
from collections.abc import Iterator
from itertools import combinations

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browsers import CHROMIUM, DRIVER, browser, complaints
from helpers import ROOT, free_port, let_pass, wait_until
from programs import Program, Programs
from sceneries import grown, shown
from visits import served

MOST_BYTES = 60_000  # of the whole page

needs_a_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromium-driver are not installed"
)


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "page").iterdir()) < MOST_BYTES


def test_the_page_needs_nothing_from_outside_and_takes_no_text_for_html() -> None:
    for path in (ROOT / "page").iterdir():
        text = path.read_text(encoding="utf-8")
        assert "https://" not in text, path
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", ""), path
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in text, path


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    """One browser for all tests of a process: it takes a second to start."""
    with browser() as found:
        yield found


@pytest.fixture
def page(chrome: Chrome, programs: Programs) -> Iterator[Chrome]:
    """The browser; a page that complained of anything fails its test."""
    assert programs, "the page is left before its programs end"
    yield chrome
    complained = complaints(chrome)
    chrome.get("about:blank")
    assert complained == []


def words(page: Chrome, css: str) -> list[str]:
    """The text of each such element, as it is in the page."""
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    return [" ".join(text.split()) for text in page.execute_script(script, css)]


def titles(page: Chrome, css: str) -> list[str]:
    """What each such element shows when it is pointed at: the whole address, of a peer's."""
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.title)"
    return list(page.execute_script(script, css))


def peers(page: Chrome) -> dict[str, str]:
    """What the picture shows of each peer, by address."""
    script = """return [...document.querySelectorAll("#peers g")]
        .map((e) => e.getAttribute("aria-label"))"""
    labels = (str(label).partition(" ") for label in page.execute_script(script))
    return {address: said for address, _, said in labels}


def classes(page: Chrome, address: str) -> list[str]:
    """How the picture marks a peer."""
    script = """return [...document.querySelectorAll("#peers g")]
        .find((e) => e.getAttribute("aria-label").startsWith(arguments[0] + " "))
        ?.getAttribute("class") ?? "" """
    return str(page.execute_script(script, address)).split()


def click_on(page: Chrome, address: str) -> None:
    """A click on the middle of a peer in the picture, where it stands now."""
    script = """const disc = [...document.querySelectorAll("#peers g")]
        .find((e) => e.getAttribute("aria-label").startsWith(arguments[0] + " "))
        .querySelector(".disc").getBoundingClientRect();
        const [x, y] = [disc.x + disc.width / 2, disc.y + disc.height / 2];
        document.elementFromPoint(x, y)
            .dispatchEvent(new MouseEvent("click", { bubbles: true, clientX: x, clientY: y }))"""
    page.execute_script(script, address)


def opened(page: Chrome, dashboard: Program, count: int) -> None:
    """Open its page, and wait until it shows so many live peers."""
    page.get(served(dashboard))
    wait_until(
        lambda: [said[:7] for said in peers(page).values()] == ["is here"] * count,
        what=f"{count} peers in the picture",
    )


# ---- what happens in the network is seen ---------------------------------------------------------


@needs_a_browser
def test_the_picture_and_the_numbers_follow_the_network(page: Chrome, programs: Programs) -> None:
    seed, [first, second, third] = programs.network(3)
    dashboard = programs.start("dashboard.py", free_port())
    opened(page, dashboard, 4)
    wait_until(lambda: words(page, "#link-count") == ["6"], what="every link of four peers")
    assert words(page, "#peer-count") == ["4"]
    assert words(page, "#seed-count") == ["1"]
    assert any(seed.address.endswith(text.split()[-1]) for text in words(page, "#seeds li"))
    assert "self" in classes(page, dashboard.address)
    before = page.get_screenshot_as_png()

    first.kill()
    wait_until(lambda: peers(page)[first.address] == "is dead", what="a death")
    assert "dead" in classes(page, first.address)
    wait_until(lambda: words(page, "#peer-count") == ["3"], what="one peer less")
    wait_until(lambda: words(page, "#link-count") == ["3"], what="its links gone")
    wait_until(lambda: "is dead" in words(page, "#announcements")[0], what="the news in words")
    assert page.get_screenshot_as_png() != before

    second.terminate()
    wait_until(lambda: peers(page)[second.address] == "has left", what="a farewell")
    third.pause()
    wait_until(lambda: peers(page)[third.address].startswith("gives no answer"), what="silence")
    third.resume()
    newcomer = programs.peer()
    wait_until(lambda: peers(page).get(newcomer.address, "").startswith("is here"), what="a peer")
    happened = " ".join(words(page, "#messages .happening"))
    assert "is dead" in happened
    assert "has left" in happened
    assert "has joined" in happened


@needs_a_browser
def test_what_the_page_says_is_heard_and_what_others_say_is_shown(
    page: Chrome, programs: Programs
) -> None:
    _, [peer] = programs.network(1)
    terminal = programs.terminal("peer.py", free_port(), "--gossip-every", 0)
    terminal.wait_to_see("linked with")
    dashboard = programs.start("dashboard.py", free_port())
    opened(page, dashboard, 3)
    page.find_element(By.ID, "text").send_keys("good morning from the page" + Keys.ENTER)
    terminal.wait_to_see("says: good morning from the page")
    peer.wait_for("message", text="good morning from the page", origin=dashboard.address)
    wait_until(
        lambda: page.find_element(By.ID, "text").get_property("value") == "", what="an empty box"
    )
    terminal.type("good morning to the page")
    wait_until(
        lambda: (
            words(page, "#messages li:not(.happening) bdi")
            == ["good morning to the page", "good morning from the page"]
        ),
        what="both, the latest first",
    )


@needs_a_browser
def test_a_message_is_seen_travelling(page: Chrome, programs: Programs) -> None:
    _, [peer] = programs.network(1)
    opened(page, programs.start("dashboard.py", free_port()), 2)
    wait_until(lambda: words(page, "#link-count") == ["1"], what="the link")
    page.execute_script(
        """window.seen = 0; new MutationObserver(() => {
            if (document.getElementById("pulses").getAttribute("d")) window.seen += 1;
        }).observe(document.getElementById("pulses"), { attributes: true });"""
    )
    wait_until(
        lambda: peer.say("on its way") or page.execute_script("return window.seen") > 2,  # type: ignore[func-returns-value]
        what="dots on the link",
    )


@needs_a_browser
def test_text_from_the_network_is_never_taken_for_html(page: Chrome, programs: Programs) -> None:
    _, [peer] = programs.network(1)
    opened(page, programs.start("dashboard.py", free_port()), 2)
    nasty = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    peer.say(nasty, "\u202eevil\u202c", "x" * 100_000, b"\xff\xfe")
    wait_until(lambda: len(words(page, "#messages bdi")) == 4, what="four messages")
    shown = words(page, "#messages bdi")
    assert shown[3] == nasty
    assert len(shown[1]) < 1000
    assert shown[0].startswith("(bytes) ")
    assert page.title == "The network, live"
    assert page.find_elements(By.CSS_SELECTOR, "#messages img, #messages script") == []
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")


@needs_a_browser
def test_what_cannot_be_said_is_explained(page: Chrome, programs: Programs) -> None:
    dashboard = programs.start("dashboard.py", free_port())
    opened(page, dashboard, 1)
    page.execute_script("document.getElementById('text').value = 'x'.repeat(1100000)")
    page.find_element(By.CSS_SELECTOR, "#say button").click()
    wait_until(lambda: "at most 1048576 bytes" in words(page, "#said")[0], what="the reason")
    assert len(complaints(page)) == 1  # the browser's own, of the refusal
    dashboard.kill()
    wait_until(lambda: "no answer" in words(page, "#connection")[0], what="that it is gone")
    assert complaints(page)
    page.get("about:blank")


# ---- looking at one peer -------------------------------------------------------------------------


@needs_a_browser
def test_a_click_shows_a_peers_neighbours_counters_and_messages(
    page: Chrome, programs: Programs
) -> None:
    _, [first, second] = programs.network(2)
    dashboard = programs.start("dashboard.py", free_port())
    opened(page, dashboard, 3)
    first.say("one", "two")
    second.say("three")
    wait_until(lambda: len(words(page, "#messages bdi")) == 3, what="three messages")
    click_on(page, first.address)
    assert words(page, "#chosen-address") == [first.address]
    wait_until(lambda: words(page, "#counters dd")[:2] == ["2", "1"], what="what it said and heard")
    assert words(page, "#its-messages bdi") == ["two", "one"]
    assert sorted(titles(page, "#neighbours button")) == sorted([second.address, dashboard.address])
    page.find_element(By.CSS_SELECTOR, f"#neighbours [title='{second.address}']").click()
    assert words(page, "#chosen-address") == [second.address]
    page.find_element(By.ID, "let-go").click()
    assert not page.find_element(By.ID, "chosen").is_displayed()


@needs_a_browser
def test_the_keyboard_goes_from_peer_to_peer(page: Chrome, programs: Programs) -> None:
    _, others = programs.network(3)
    dashboard = programs.start("dashboard.py", free_port())
    opened(page, dashboard, 4)
    picture = page.find_element(By.ID, "map")
    picture.send_keys(Keys.ARROW_RIGHT)
    assert words(page, "#chosen-address") == [dashboard.address]
    seen = {dashboard.address}
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_DOWN, Keys.ARROW_UP) * 4:
        picture.send_keys(key)
        seen.add(words(page, "#chosen-address")[0])
        active = picture.get_attribute("aria-activedescendant")
        assert (
            page.execute_script(
                "return document.getElementById(arguments[0]).getAttribute('aria-selected')", active
            )
            == "true"
        )
    assert len(seen) > 1
    assert seen <= {dashboard.address, *(peer.address for peer in others)}
    picture.send_keys(Keys.ESCAPE)
    assert not page.find_element(By.ID, "chosen").is_displayed()


@needs_a_browser
def test_the_table_says_the_same_in_words(page: Chrome, programs: Programs) -> None:
    _, [peer] = programs.network(1)
    dashboard = programs.start("dashboard.py", free_port())
    opened(page, dashboard, 2)
    peer.say("hello")
    page.find_element(By.CSS_SELECTOR, "#in-words summary").click()

    def rows() -> dict[str, list[str]]:
        cells = words(page, "#rows th, #rows td")
        values = [cells[at + 1 : at + 5] for at in range(0, len(cells), 8)]
        return dict(zip(titles(page, "#rows th button"), values, strict=True))

    expected = {peer.address: ["alive", "1", "1", "0"], dashboard.address: ["alive", "1", "0", "1"]}
    wait_until(lambda: rows() == expected, what="both peers in the table")
    peer.kill()
    wait_until(lambda: rows()[peer.address][0] == "dead", what="its death in the table")


# ---- how it looks --------------------------------------------------------------------------------


@needs_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colour_scheme(programs: Programs, scheme: str) -> None:
    dashboard = programs.start("dashboard.py", free_port())
    with browser(scheme=scheme) as page:
        opened(page, dashboard, 1)
        back = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        lightness = sum(map(int, back[4:-1].split(",")))
    assert (lightness > 600) == (scheme == "light")


@needs_a_browser
def test_it_fits_a_phone(programs: Programs) -> None:
    _, [peer] = programs.network(1)
    dashboard = programs.start("dashboard.py", free_port())
    with browser(390, 844, is_phone=True) as page:
        opened(page, dashboard, 2)
        peer.say("x" * 300)
        wait_until(lambda: words(page, "#messages bdi") == ["x" * 300], what="the message")
        click_on(page, peer.address)
        page.find_element(By.CSS_SELECTOR, "#in-words summary").click()
        assert page.execute_script("return document.documentElement.scrollWidth") == 390
        box = page.find_element(By.ID, "map").rect
        assert box["width"] > 330
        assert box["height"] > 250


@needs_a_browser
def test_nothing_moves_for_who_wants_no_movement(programs: Programs) -> None:
    _, [peer, _] = programs.network(2)
    dashboard = programs.start("dashboard.py", free_port())
    with browser() as page:
        still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": still})
        opened(page, dashboard, 3)
        peer.say("hello")
        wait_until(lambda: words(page, "#messages bdi") == ["hello"], what="the message")
        assert page.find_element(By.ID, "pulses").get_attribute("d") in (None, "")


Circle = tuple[float, float, float]  # the middle, and the radius


def circles(page: Chrome) -> list[Circle]:
    """Where each peer stands, in pixels from the corner of the picture."""
    script = """const map = document.getElementById("map").getBoundingClientRect();
        return [...document.querySelectorAll("#peers .disc")].map((disc) => {
            const box = disc.getBoundingClientRect();
            return [box.x + box.width / 2 - map.x, box.y + box.height / 2 - map.y, box.width / 2];
        })"""
    return [(x, y, radius) for x, y, radius in page.execute_script(script)]


def overlaps(found: list[Circle]) -> int:
    """How many pairs of peers cover each other in part."""
    pairs = combinations(found, 2)
    return sum(math.dist(one[:2], other[:2]) < one[2] + other[2] for one, other in pairs)


@needs_a_browser
@pytest.mark.parametrize("count", [2, 30, 300])
@pytest.mark.parametrize("is_phone", [False, True])
def test_the_picture_settles_and_stays_readable(count: int, is_phone: bool) -> None:
    width, height = (390, 844) if is_phone else (1280, 800)
    with shown(grown(count)) as url, browser(width, height, is_phone=is_phone) as page:
        page.get(url)
        wait_until(lambda: len(circles(page)) == count, what="every peer")
        places: list[list[Circle]] = [[]]

        def is_still() -> bool:
            let_pass(0.5)
            places.append(circles(page))
            return places[-2] == places[-1]

        wait_until(is_still, what="a picture that does not move")
        found = places[-1]
        box = page.find_element(By.ID, "map").rect
        assert all(0 < x < box["width"] and 0 < y < box["height"] for x, y, _ in found)
        assert overlaps(found) <= (count // 10 if is_phone and count > 100 else 0)


@needs_a_browser
def test_when_very_many_die_the_list_says_how_many_more() -> None:
    network = grown(60)
    with shown(network) as url, browser() as page:
        page.get(url)
        wait_until(lambda: len(circles(page)) == 60, what="every peer")
        network["gone"] = [
            {"address": network["peers"].pop()["address"], "state": "dead"} for _ in range(23)
        ]
        wait_until(
            lambda: "and 3 more" in "".join(words(page, "#messages li")), what="the rest, counted"
        )
        assert len(words(page, "#messages .happening")) == 20
