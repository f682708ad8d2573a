"""A test kit for code that uses a2v: a scriptable service, and time that needs no waiting.

It needs no account, no engine and no network. Under pytest the fixtures ``a2v_service`` and ``a2v_server`` are there by
themselves.
"""

from a2v.testing._limits import FixedWindow, RateLimit, SlidingWindow, TokenBucket
from a2v.testing._server import Server
from a2v.testing._service import Service
from a2v.testing._time import VirtualTimeLoop, run_in_virtual_time, virtual_time
from a2v.testing._transport import Transport
from a2v.testing._values import Call, CallName, Reply, Submit

__all__ = [
    "Call",
    "CallName",
    "FixedWindow",
    "RateLimit",
    "Reply",
    "Server",
    "Service",
    "SlidingWindow",
    "Submit",
    "TokenBucket",
    "Transport",
    "VirtualTimeLoop",
    "run_in_virtual_time",
    "virtual_time",
]

for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__  # what people import is what they see in reprs and tracebacks
