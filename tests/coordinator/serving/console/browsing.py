"""A page as a reader without eyes or JavaScript has it, and a visitor who sends its forms."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

from coordinator.serving.backend import LocalOffice
from coordinator.serving.console import ConsoleSettings, make_console
from coordinator.serving.office import Office
from tests.coordinator.clock import Clock

BASE = "/console"
FETCHED = ("data-hx-get", "data-source", "data-envelope", "data-keys")
VOID = {"meta", "link", "input", "br", "img", "hr"}


@dataclass
class Form:
    """One form with the values its fields have."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """What a page holds.

    Attributes:
        count: tag -> how often it is there.
        links, assets: addresses to go to, and addresses loaded with the page.
        forms: its forms.
        unlabelled: fields to fill in that nothing labels.
        inline: attributes and tags that a strict CSP forbids.
        text: all its text.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.links: list[str] = []
        self.assets: list[str] = []
        self.forms: list[Form] = []
        self.inline: list[str] = []
        self.text = ""
        self._fields: list[str] = []
        self._labels: set[str] = set()
        self._open: list[str] = []
        self._select = ""
        self.feed(html)
        self.close()
        assert not self._open, self._open
        self.unlabelled = [name for name in self._fields if name not in self._labels]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = f"svg {tag}" if "svg" in self._open else tag
        self.count[name] = self.count.get(name, 0) + 1
        if tag not in VOID:
            self._open.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self._note_address(tag, given)
        self._note_form(tag, given)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in ("li", "p", "option") and self._open[-1] != tag:
            return
        assert self._open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.text += data

    def _note_address(self, tag: str, given: dict[str, str]) -> None:
        if tag == "a":
            self.links.append(given["href"])
        elif tag in ("script", "link", "img"):
            self.assets.append(given.get("src") or given.get("href", ""))
        self.links += [
            given[n] for n in ("data-hx-get", "data-source", "data-envelope") if n in given
        ]

    def _note_form(self, tag: str, given: dict[str, str]) -> None:
        if tag == "form":
            self.forms.append(Form(given["action"], given["method"]))
        elif tag == "label":
            self._labels.add(given["for"])
        elif tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            self._fields.append(given["id"])
        if tag in ("input", "textarea"):
            self.forms[-1].fields[given["name"]] = given.get("value", "")
        elif tag == "select":
            self._select = given["name"]
        elif tag == "option" and ("selected" in given or self._select not in self.forms[-1].fields):
            self.forms[-1].fields[self._select] = given.get("value", "")

    def form(self, ending: str) -> Form:
        """The form whose action ends so."""
        return next(form for form in self.forms if form.action.endswith(ending))

    def has_form(self, ending: str) -> bool:
        """Whether there is such a form."""
        return any(form.action.endswith(ending) for form in self.forms)


class Visitor:
    """A browser without JavaScript, logged in with a key of a role."""

    def __init__(self, app: FastAPI) -> None:
        self.http = TestClient(app, base_url="http://unweave.test", follow_redirects=False)
        self.last = ""

    def log_in(self, key: str) -> Response:
        page = Page(self.http.get(f"{BASE}/login").text)
        return self.send(page.form("/login"), key=key)

    def get(self, path: str) -> Response:
        return self.http.get(BASE + path)

    def page(self, path: str) -> Page:
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, Page(answer.text).text)
        return Page(answer.text)

    def send(self, form: Form, to: str | None = None, **values: str) -> Response:
        return self.http.post(to or form.action, data=form.fields | values)

    def follow(self, answer: Response) -> Page:
        assert answer.status_code == 303, Page(answer.text).text
        return Page(self.http.get(answer.headers["location"]).text)


def console_app(office: Office, settings: ConsoleSettings | None = None) -> FastAPI:
    """An application that is the console alone."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(make_console(LocalOffice(office), settings))
    return app


def visitor(app: FastAPI, office: Office, role: str) -> Visitor:
    """Somebody with a fresh key of the role, logged in."""
    made = office.create_key(role, "test", note=f"a {role}")
    found = Visitor(app)
    found.log_in(made["key"])
    return found


def submitted(office: Office, node: Any, **options: Any) -> str:
    """Id of a request for one node."""
    asked = {"kind": "nodes", "selector": {"ids": [node]}}
    return str(office.submit(asked, None, {"requested_by": "somebody"} | options)["request_id"])


def completed(office: Office, clock: Clock, node: Any) -> str:
    """Id of a request that was carried out."""
    request_id = submitted(office, node, priority="urgent")
    office.system.run()
    assert office.request(request_id)["state"] == "completed"
    return request_id


def erase(person: Visitor, what: str, **options: str) -> str:
    """Look up, preview and confirm; the address of the request."""
    form = person.page("/erase").form("/preview")
    person.send(form, to=f"{BASE}/erase/look-up", what=what)
    preview = Page(person.send(form, what=what).text)
    confirm = preview.form("/confirm")
    total = re.search(r"records that go, (\d+)", preview.text)
    assert total is not None, preview.text
    answer = person.send(confirm, count=total[1], **options)
    assert answer.status_code == 303, Page(answer.text).text
    return str(answer.headers["location"]).split("?")[0]
