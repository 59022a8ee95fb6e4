"""The console in headless Chromium: by mouse, by keyboard, without JavaScript, on a phone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Served

pytestmark = pytest.mark.slow

SHOTS = "UNWEAVE_SCREENSHOTS"  # a folder: pictures of every page are written to it
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 800}
PATHS = {
    "overview": "/",
    "shard-graph": "/shards",
    "shard": "/shards/1",
    "queue": "/queue",
    "erase": "/erase",
    "certificates": "/certificates",
    "costs": "/costs",
    "models": "/models",
    "artefacts": "/artefacts",
    "audit": "/audit",
    "settings": "/settings",
}
SHOT_HEIGHT = 1100
COLOURS = 128
MOST_TABS = 60
Open = Callable[..., Any]


@pytest.fixture
def open_page(chromium: Any, served: Served) -> Iterator[Open]:
    """Opens pages of fresh browsers; in the end, nothing may have left or been blocked."""
    contexts, asked, complaints = [], [], []

    def note(message: Any) -> None:
        if message.type == "error" and "status of 4" not in message.text:
            complaints.append(message.text)

    def open_one(**options: Any) -> Any:
        context = chromium.new_context(base_url=served.url, **({"viewport": DESK} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert asked and not [url for url in asked if not url.startswith(f"{served.url}/")]
    assert not complaints


def log_in(page: Any, served: Served, role: str = "admin") -> None:
    page.goto("/console/login")
    page.fill("#key", served.keys[role])
    page.click("main button")
    page.wait_for_url("**/console/")


def test_a_node_is_found_previewed_erased_and_certified(open_page: Open, served: Served) -> None:
    page, person = open_page(), served.fresh_id()
    log_in(page, served)

    page.click("nav >> text=New erasure")
    page.fill("#what", person)
    page.click("main >> button:text('Look up')")
    assert "1 found" in page.inner_text("main")
    page.click("main >> button:text('Preview')")
    page.select_option("#priority", "urgent")
    total = page.inner_text("fieldset p strong")
    page.fill("#count", total)
    page.click(f"button:text('Erase {total} records')")
    page.wait_for_url("**/console/requests/req_*")
    page.wait_for_selector("text=Open the certificate", timeout=60_000)  # by htmx, no reload
    state = page.inner_text("#live > p .state")
    page.click("text=Open the certificate")
    page.wait_for_selector("#in-browser:not(:empty)")

    assert state == "completed"
    assert page.inner_text("h1").startswith("Certificate ")
    assert "What this does not prove" in page.inner_text("main")
    assert "confirm" not in page.inner_text("#in-browser")  # confirmed, or not offered
    assert person not in page.content() and person not in page.url
    assert served.office.gone([person]) == [True]


def test_what_waits_is_seen_to_move_without_a_reload(open_page: Open, served: Served) -> None:
    from tests.browser.conftest import submit_one

    request_id = submit_one(served.office, served.fresh_id())
    page = open_page(timezone_id="Asia/Tokyo")
    log_in(page, served)
    page.goto(f"/console/requests/{request_id}")
    before = page.inner_text("#live > p .state")

    served.office.act(request_id, "expedite", "test", "")
    page.wait_for_selector("#live .state.good >> text=completed", timeout=60_000)

    assert before == "accepted"
    assert page.locator("#live time:not([data-local])").count() == 0  # the reader's own time too


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until the focus is there."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement?.matches(s) ?? false", selector):
            return
    raise AssertionError(f"{selector} is not reached by Tab")


def test_everything_is_done_by_keyboard_alone(open_page: Open, served: Served) -> None:
    page, person = open_page(), served.fresh_id()
    page.goto("/console/login")
    page.keyboard.type(served.keys["admin"])  # the field has the focus
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    tab_to(page, "a[href$='/erase']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/erase")
    tab_to(page, "#what")
    page.keyboard.type(person)
    tab_to(page, "form.stack .row button:not(.plain)")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    page.wait_for_selector("#count")
    total = page.inner_text("fieldset p strong")
    tab_to(page, "#priority")
    page.keyboard.type("urgent")
    tab_to(page, "#count")
    page.keyboard.type(total)
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/requests/req_*")

    assert outline != "none"
    served.wait_until(lambda: served.office.gone([person]) == [True])


def test_without_javascript_only_the_live_updates_are_missing(
    open_page: Open, served: Served
) -> None:
    page, person = open_page(java_script_enabled=False), served.fresh_id()
    log_in(page, served, "requester")

    page.goto("/console/erase")
    page.fill("#what", person)
    page.click("main >> button:text('Preview')")
    total = page.inner_text("fieldset p strong")
    page.fill("#count", "1234567")
    page.click("button.danger")
    refused = page.inner_text("[role=alert]")
    page.select_option("#priority", "urgent")
    page.fill("#count", total)
    page.click("button.danger")
    page.wait_for_url("**/console/requests/req_*")
    request_id = page.url.split("/")[-1].split("?")[0]
    served.wait_until(lambda: served.office.request(request_id)["state"] == "completed")
    page.goto(f"/console/requests/{request_id}")
    page.click("text=Open the certificate")

    assert "Nothing was changed" in refused
    assert page.inner_text("h1").startswith("Certificate ")
    page.goto("/console/costs")
    assert page.locator("table").count() >= 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(open_page: Open, served: Served, scheme: str) -> None:
    page = open_page(viewport=PHONE, color_scheme=scheme)
    log_in(page, served)

    wide = []
    for path in [*PATHS.values(), *own_paths(served).values()]:
        page.goto(f"/console{path}")
        page.wait_for_load_state("networkidle") if path == "/costs" else None
        if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
            wide.append(path)

    assert not wide


def test_the_dark_scheme_is_dark_and_both_are_legible(open_page: Open, served: Served) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        page.goto("/console/login")
        colours[scheme] = page.evaluate(
            "(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
        )

    for paper, ink in colours.values():
        assert contrast(paper, ink) > 7
    assert luminance(colours["dark"][0]) < 0.05 < 0.9 < luminance(colours["light"][0])


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``; source: WCAG 2.2."""
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours; source: WCAG 2.2."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_shard_is_opened_from_the_picture(open_page: Open, served: Served) -> None:
    page = open_page()
    log_in(page, served, "viewer")
    page.goto("/console/shards")

    page.click("svg a[href$='/shards/2'] circle")

    assert page.inner_text("h1") == "Shard 2"


def test_plots_are_drawn(open_page: Open, served: Served) -> None:
    page = open_page()
    log_in(page, served, "viewer")
    page.goto("/console/costs")

    page.wait_for_selector(".plot canvas")

    assert page.locator(".plot canvas").count() == 2


def own_paths(served: Served) -> dict[str, str]:
    """Pages of one request and of one certificate."""
    done = served.office.find(state="completed", limit=1)["items"][0]
    waiting = served.office.find(state="on_hold", limit=1)["items"][0]
    return {
        "request": f"/requests/{done['request_id']}",
        "request-on-hold": f"/requests/{waiting['request_id']}",
        "certificate": f"/certificates/{done['certificate_id']}",
    }


@pytest.mark.skipif(SHOTS not in os.environ, reason=f"set {SHOTS} to a folder for pictures")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_of_every_page(open_page: Open, served: Served, scheme: str) -> None:
    folder = Path(os.environ[SHOTS])
    folder.mkdir(parents=True, exist_ok=True)
    page = open_page(color_scheme=scheme, timezone_id="Europe/Berlin")
    page.goto("/console/login")
    take(page, folder / f"console-login-{scheme}.png")
    log_in(page, served)

    for name, path in (PATHS | own_paths(served)).items():
        page.goto(f"/console{path}")
        if name == "costs":
            page.wait_for_selector(".plot canvas")
        take(page, folder / f"console-{name}-{scheme}.png")
    page.goto("/console/erase")
    page.fill("#what", served.fresh_id())
    page.click("main >> button:text('Preview')")
    take(page, folder / f"console-preview-{scheme}.png")

    assert len(list(folder.glob(f"console-*-{scheme}.png"))) == len(PATHS) + 5


def take(page: Any, path: Path) -> None:
    """A picture of the page's beginning, with few colours."""
    from PIL import Image

    page.wait_for_timeout(200)
    height = min(page.evaluate("document.documentElement.scrollHeight"), SHOT_HEIGHT)
    page.screenshot(
        path=path,
        full_page=True,
        clip={"x": 0, "y": 0, "width": DESK["width"], "height": height},
    )
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
