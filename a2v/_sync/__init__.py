"""The sync client: ``loop.py`` and ``bridge.py`` written by hand, ``client.py`` generated from the async client."""
