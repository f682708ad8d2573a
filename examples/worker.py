"""A queue of videos that survives crashes of its worker.

python examples/worker.py add QUEUE MODEL_ID AUDIO_URL...   adds jobs to the queue, an SQLite file
python examples/worker.py work QUEUE FOLDER                 makes the videos and saves each as FOLDER/VIDEO_ID.mp4

Stop or kill the worker at any time and start it again: it picks up running renders by their ids, and submits only jobs that
were never submitted. A batch with a journal does all this and more; this example shows how to do it with your own queue. Run
one worker at a time on a queue. The token comes from A2V_TOKEN, the server from A2V_BASE_URL.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import anyio

import a2v

# new → submitting → submitted → saved; or "failed" from anywhere.
SCHEMA = """CREATE TABLE IF NOT EXISTS videos (
    number INTEGER PRIMARY KEY, model_id TEXT, audio_url TEXT, state TEXT DEFAULT 'new', video_id TEXT
)"""


class Queue:
    """The jobs and their states. Every change is on disk when a method returns."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute(SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, model_id: str, audio_url: str) -> None:
        """Append a job."""
        self._db.execute("INSERT INTO videos (model_id, audio_url) VALUES (?, ?)", (model_id, audio_url))

    def set(self, number: int, state: str, video_id: str | None = None) -> None:
        """Store the state of a job."""
        self._db.execute(
            "UPDATE videos SET state = ?, video_id = coalesce(?, video_id) WHERE number = ?", (state, video_id, number)
        )

    def in_state(self, state: str) -> list[tuple[int, str, str, str]]:
        """Return the jobs in a state: number, model_id, audio_url, video_id."""
        query = "SELECT number, model_id, audio_url, video_id FROM videos WHERE state = ? ORDER BY number"
        return self._db.execute(query, (state,)).fetchall()


async def work(queue: Queue, folder: Path) -> bool:
    """Make the videos of the queue; return whether all of them are saved."""
    async with a2v.AsyncA2V() as client, anyio.create_task_group() as saving:
        for number, _, _, video_id in queue.in_state("submitted"):
            print(f"{number}: picked up as {video_id}")
            saving.start_soon(save, queue, number, client.videos.task(video_id), folder)
        for number, model_id, audio_url, _ in queue.in_state("new"):
            if task := await submit(client, queue, number, model_id, audio_url):
                saving.start_soon(save, queue, number, task, folder)
    for number, _, audio_url, _ in queue.in_state("submitting"):
        # It may have arrived. Submitting it again could cost twice, so a person has to decide.
        print(f"{number}: unknown; look for a video of {audio_url} in your account")
    return not any(queue.in_state(state) for state in ("new", "submitting", "submitted", "failed"))


async def submit(
    client: a2v.AsyncA2V, queue: Queue, number: int, model_id: str, audio_url: str
) -> a2v.AsyncVideoTask | None:
    """Submit a job at most once: the intent is stored before the request, the id right after the response."""
    queue.set(number, "submitting")
    try:
        task = await client.videos.generate(model_id=model_id, audio_url=audio_url)
    except a2v.SubmissionUnknownError as error:
        print(f"{number}: {error}")  # it stays "submitting"
    except (a2v.TransportError, a2v.AuthenticationError, a2v.PermissionDeniedError, a2v.RateLimitError) as error:
        queue.set(number, "new")  # provably not accepted, for a reason that is not about this job
        print(f"{number}: {error}")
    except (a2v.A2VError, ValueError) as error:
        queue.set(number, "failed")
        print(f"{number}: {error}")
    else:
        queue.set(number, "submitted", task.video_id)
        return task
    return None


async def save(queue: Queue, number: int, task: a2v.AsyncVideoTask, folder: Path) -> None:
    """Wait for a video and save it."""
    try:
        # Overwrites a file that an earlier run saved without storing the state.
        path = await task.download(folder / f"{task.video_id}.mp4", overwrite=True)
    except a2v.VideoFailedError as error:
        queue.set(number, "failed")
        print(f"{number}: {error}")
    except a2v.A2VError as error:
        print(f"{number}: {error}")  # it stays "submitted": the next run follows it again
    else:
        queue.set(number, "saved")
        print(f"{number}: {path}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["add", path, model_id, *audio_urls] if audio_urls:
            with closing(Queue(path)) as queue:
                for audio_url in audio_urls:
                    queue.add(model_id, audio_url)
        case ["work", path, folder]:
            with closing(Queue(path)) as queue:
                try:
                    sys.exit(not anyio.run(work, queue, Path(folder)))
                except a2v.A2VError as error:
                    sys.exit(f"{type(error).__name__}: {error}")
        case _:
            sys.exit(__doc__)
