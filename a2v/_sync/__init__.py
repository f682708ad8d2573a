"""The blocking client: ``bridge.py`` by hand, ``client.py`` generated from the async one."""
