"""What the tests that start Ray in their own process share."""

import secrets
import tempfile
from collections.abc import Iterator

import pytest

TOKEN = secrets.token_hex(32)
"""Of all clusters of this process: Ray reads it once and keeps it."""


@pytest.fixture
def ray_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray notes its clusters apart from those of others, and lets nobody in without the token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # as newer versions have it by themselves
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    # A short path, for there are sockets in it.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield
