"""The console of a served home, and its admin."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from coordinator.serving.office import Office
from tests.coordinator.serving.console.browsing import Visitor, console_app, visitor


@pytest.fixture(scope="module")
def app(office: Office) -> FastAPI:
    return console_app(office)


@pytest.fixture(scope="module")
def admin(app: FastAPI, office: Office) -> Visitor:
    return visitor(app, office, "admin")
