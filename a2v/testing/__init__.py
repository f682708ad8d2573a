"""A test kit for code that uses a2v: a scriptable service, and virtual time.

It needs no account, engine or network. The fixtures ``a2v_service`` and ``a2v_server`` are a pytest plugin, which pytest loads
automatically.
"""

from a2v._budget.memory_store import SharedBudget
from a2v.testing._limits import FixedWindow, RateLimit, SlidingWindow, TokenBucket
from a2v.testing._service import Server, Service
from a2v.testing._time import VirtualTimeLoop, run_in_virtual_time, virtual_time
from a2v.testing._transport import Transport
from a2v.testing._values import Call, CallName, Reply, Submission, Synthesis

__all__ = [
    "Call",
    "CallName",
    "FixedWindow",
    "RateLimit",
    "Reply",
    "Server",
    "Service",
    "SharedBudget",
    "SlidingWindow",
    "Submission",
    "Synthesis",
    "TokenBucket",
    "Transport",
    "VirtualTimeLoop",
    "run_in_virtual_time",
    "virtual_time",
]

for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__  # reprs and tracebacks show the public name
