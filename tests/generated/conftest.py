"""What the generated tests share: the stores and worlds of the faults."""

from tests.faults.conftest import house, own_world, server_url, start_store, world

__all__ = ["house", "own_world", "server_url", "start_store", "world"]
