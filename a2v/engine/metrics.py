"""The engine's metrics in the text format of Prometheus, at ``/metrics``.

Requests and renders are counted here, from the start of the process. The length of the queue and all sizes are read at each scrape.
Each label has a small, fixed set of values, whatever clients send.
"""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

from attrs import define, field

from a2v._values.models import VideoStatus
from a2v._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from a2v.engine.task_store import TaskStore
    from a2v.engine.uploads import Uploads

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_METHODS = {"GET", "HEAD", "POST", "PUT"}


@define(eq=False)
class Histogram:
    """A histogram of durations: a cumulative count for each bucket, the number of observations, and their sum in seconds."""

    counts: Counter[float] = field(factory=Counter)
    number: int = 0
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count an observation."""
        self.number += 1
        self.total += seconds
        self.counts.update(bound for bound in _BUCKETS_SECONDS if seconds <= bound)


@define(eq=False)
class Metrics:
    """Counts and durations since the engine started.

    Attributes:
        requests: The number of responses by method and status.
        videos: The number of videos that ended, by status.
        render_seconds: The durations of renders.
        video_seconds: The times from submissions to finished videos.
    """

    requests: Counter[tuple[str, int]] = field(factory=Counter)
    videos: Counter[VideoStatus] = field(factory=Counter)
    render_seconds: Histogram = field(factory=Histogram)
    video_seconds: Histogram = field(factory=Histogram)

    def count_request(self, method: str, status: int) -> None:
        """Count a response."""
        self.requests[method if method in _METHODS else "other", status] += 1

    def text(self, store: TaskStore, uploads: Uploads, folder: Path, *, exhausted: bool) -> str:
        """Return the response to ``GET /metrics``.

        Args:
            store: The tasks.
            uploads: The uploads.
            folder: The data folder.
            exhausted: Whether the machine has run out of a resource.
        """
        disk, unfinished = shutil.disk_usage(folder), store.unfinished_counts()
        requests = {
            f'method="{method}",status="{status}"': count for (method, status), count in sorted(self.requests.items())
        }
        ended = (VideoStatus.FINISHED, VideoStatus.FAILED)
        lines = [
            *_metric("build_info", "gauge", "The version of a2v.", {f'version="{__version__}"': 1}),
            *_metric("http_requests_total", "counter", "Responses by method and status.", requests),
            *_metric("queue_length", "gauge", "Videos that wait for a render.", {"": unfinished["pending"]}),
            *_metric("renders_running", "gauge", "Videos that are being rendered.", {"": unfinished["in_progressing"]}),
            *_metric(
                "videos_total",
                "counter",
                "Videos that ended, by outcome: finished or error.",
                {f'outcome="{status.value}"': self.videos[status] for status in ended},
            ),
            *_histogram("render_seconds", "Duration of renders.", self.render_seconds),
            *_histogram("video_seconds", "Time from a submission to its finished video.", self.video_seconds),
            *_metric("uploads_total", "counter", "Recordings uploaded.", {"": uploads.received}),
            *_metric("uploads_bytes", "gauge", "Size of the uploads that are kept.", {"": uploads.used_bytes}),
            *_metric("disk_free_bytes", "gauge", "Free space on the disk of the data folder.", {"": disk.free}),
            *_metric("disk_size_bytes", "gauge", "Size of the disk of the data folder.", {"": disk.total}),
            *_metric("exhausted", "gauge", "1 while the machine has run out of a resource.", {"": int(exhausted)}),
        ]
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, values: dict[str, int]) -> Iterator[str]:
    yield f"# HELP a2v_{name} {text}"
    yield f"# TYPE a2v_{name} {kind}"
    for labels, value in values.items():
        yield f"a2v_{name}{{{labels}}} {value}" if labels else f"a2v_{name} {value}"


def _histogram(name: str, text: str, values: Histogram) -> Iterator[str]:
    yield f"# HELP a2v_{name} {text}"
    yield f"# TYPE a2v_{name} histogram"
    for bound in _BUCKETS_SECONDS:
        yield f'a2v_{name}_bucket{{le="{bound}"}} {values.counts[bound]}'
    yield f'a2v_{name}_bucket{{le="+Inf"}} {values.number}'
    yield f"a2v_{name}_sum {values.total:.3f}"
    yield f"a2v_{name}_count {values.number}"
