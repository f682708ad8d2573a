"""What led to an error: its causes, its contexts, and the members of exception groups."""

from __future__ import annotations

from collections.abc import Iterator


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]


def foreign(error: BaseException) -> list[BaseException]:
    """What of its chain belongs to an event loop or to the HTTP library: cancellations, groups of them, httpx's errors."""
    return [
        each
        for each in chain(error)
        if not isinstance(each, Exception)
        or isinstance(each, BaseExceptionGroup)
        or type(each).__module__.partition(".")[0]
        in {"anyio", "asyncio", "h11", "httpcore", "httpcore2", "httpx", "httpx2", "trio"}
    ]
