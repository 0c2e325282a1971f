"""Long tests first: what is last should be short, so that no worker waits for another."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that say themselves how long they may take are the long ones."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)
