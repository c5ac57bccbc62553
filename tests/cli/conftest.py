"""The command line without settings of whoever runs the tests."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ADAPTER_"):
            monkeypatch.delenv(name)
