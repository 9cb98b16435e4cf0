"""A queue of boxes on SQS, which several lines empty at the same time."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from daskflow.errors import GeometryError, JobError, MissingDependencyError
from daskflow.geometry import BoundingBox
from daskflow.volume import BoxTask, Tasks
from daskflow.volume.tasks import Message

_BATCH = 10  # messages in a request, as SQS has it
_SENDERS = 16
_WAIT = 20  # seconds for which SQS keeps a request that finds nothing, at most
_LOOK = 1  # seconds for the first request: one of 0 asks some of the servers alone, and may miss what there is
_RENEWALS = 3  # in the time for which a task is hidden from others

_log = logging.getLogger(__name__)


def aws(service: str) -> Any:
    """Return a client of a service of AWS; credentials, region and endpoint are those of the environment.

    Raises:
        MissingDependencyError: boto3 is not installed.
    """
    try:
        import boto3
    except ImportError:
        raise MissingDependencyError.of("boto3", "aws") from None
    with told(f"{service} of AWS, as AWS_DEFAULT_REGION and AWS_PROFILE say"):
        return boto3.client(service)


@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
    """Make one line of what AWS answers about something."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise JobError(f"{name}: {error}") from error


@dataclass(frozen=True)
class TaskQueue:
    """A queue whose messages are boxes, ``z0-z1_y0-y1_x0-x1``.

    Attributes:
        name: of the queue, or its URL.
    """

    name: str
    client: Any
    url: str

    @classmethod
    def find(cls, name: str) -> TaskQueue | None:
        """Return the queue of a name or URL, or None where there is none."""
        name = name.removeprefix("sqs://")
        client = aws("sqs")
        if name.startswith(("https://", "http://")):
            return cls(name, client, name)
        with told(f"queue {name}"):
            try:
                return cls(name, client, client.get_queue_url(QueueName=name)["QueueUrl"])
            except client.exceptions.QueueDoesNotExist:
                return None

    @classmethod
    def make(cls, name: str, visibility_timeout: int) -> TaskQueue:
        """Return the queue of a name; make it if there is none."""
        found = cls.find(name)
        if found is not None:
            return found
        name = name.removeprefix("sqs://")
        client = aws("sqs")
        settings = {"ReceiveMessageWaitTimeSeconds": str(_WAIT), "VisibilityTimeout": str(visibility_timeout)}
        with told(f"queue {name}"):
            return cls(name, client, client.create_queue(QueueName=name, Attributes=settings)["QueueUrl"])

    def send(self, boxes: Iterable[BoundingBox]) -> None:
        """Add boxes to the queue."""
        bodies = map(str, boxes)
        batches = iter(lambda: list(itertools.islice(bodies, _BATCH)), [])
        with ThreadPoolExecutor(_SENDERS) as pool:
            for _ in pool.map(self._send, batches):
                pass

    def _send(self, bodies: list[str]) -> None:
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        with told(f"queue {self.name}"):
            failed = self.client.send_message_batch(QueueUrl=self.url, Entries=entries).get("Failed")
        if failed:
            raise JobError(f"queue {self.name} refused {len(failed)} tasks: {failed[0].get('Message')}; send again")

    @property
    def timeout(self) -> int:
        """Seconds for which the queue hides a task that was received, unless it is asked for another time."""
        with told(f"queue {self.name}"):
            found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["VisibilityTimeout"])
        return int(found["Attributes"]["VisibilityTimeout"])

    @property
    def left(self) -> int:
        """About how many tasks the queue has, those included that somebody holds."""
        names = ["", "NotVisible", "Delayed"]
        with told(f"queue {self.name}"):
            found = self.client.get_queue_attributes(
                QueueUrl=self.url, AttributeNames=[f"ApproximateNumberOfMessages{name}" for name in names]
            )
        return sum(int(found["Attributes"][f"ApproximateNumberOfMessages{name}"]) for name in names)

    def receive(self, most: int, timeout: int, wait: int) -> list[dict[str, Any]]:
        """Return at most `most` messages, which are hidden from others for a while."""
        with told(f"queue {self.name}"):
            answer = self.client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=min(most, _BATCH),
                VisibilityTimeout=timeout,
                WaitTimeSeconds=wait,
                AttributeNames=["ApproximateReceiveCount"],
            )
        return list(answer.get("Messages", ()))


@dataclass(frozen=True)
class HeldMessage(Message):
    """A message that this line holds: others do not see it."""

    queue: TaskQueue
    body: str
    held: dict[str, str]
    begun: dict[str, str]

    def delete(self) -> None:
        self.release()
        handle = self.begun.pop(self.body)
        with told(f"queue {self.queue.name}"):
            self.queue.client.delete_message(QueueUrl=self.queue.url, ReceiptHandle=handle)

    def release(self) -> None:
        self.held.pop(self.body, None)


@dataclass(frozen=True)
class QueueTasks(Tasks):
    """The tasks of a queue, as long as it has some; what runs stays hidden from others, however long it takes.

    Attributes:
        queue: the queue.
        timeout: seconds for which others do not see a task whose line has died.
        most: tasks that are fetched in all; None for all.
        patience: how often the queue is asked again when others hold all that is left.
        held: handles of the messages that others are not to see, by box.
        begun: handles of the messages that were taken and are not deleted, by box; others see them when the line ends.
    """

    resumes = False
    queue: TaskQueue
    timeout: int
    most: int | None
    patience: int
    held: dict[str, str] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)

    def windows(self, most: Callable[[], int]) -> Generator[list[BoxTask], None, None]:
        ended = threading.Event()
        beating = threading.Thread(target=self._extend, args=(ended,), daemon=True)
        beating.start()
        try:
            yield from self._windows(most)
        finally:
            ended.set()
            beating.join()
            for handle in self.begun.values():
                with contextlib.suppress(Exception):  # others see it after the timeout
                    self._hide(handle, 0)

    def _windows(self, most: Callable[[], int]) -> Iterator[list[BoxTask]]:
        count = asked = 0
        while self.most is None or count < self.most:
            room = most() if self.most is None else min(most(), self.most - count)
            window = list(self._window(room, _WAIT if asked else _LOOK))
            if window:
                asked, count = 0, count + len(window)
                yield window
                continue
            if asked >= self.patience or self.queue.left <= len(self.begun):
                return
            asked += 1

    def _window(self, room: int, wait: int) -> Iterator[BoxTask]:
        """Yield tasks that the queue has, at most `room`; those that this line has begun before are left there."""
        taken = 0
        while taken < room:
            found = self.queue.receive(room - taken, self.timeout, 0 if taken else wait)
            for message in found:
                body = message["Body"]
                box = _box_of(body, message.get("MD5OfBody"))
                if box is None:
                    _log.warning("queue %s: %r is not a box z0-z1_y0-y1_x0-x1; it is left there", self.queue.name, body)
                elif body in self.begun:  # it was not kept hidden: only the latest handle is sure to delete it
                    self.begun[body] = message["ReceiptHandle"]
                    self.held.update({body: message["ReceiptHandle"]} if body in self.held else {})
                else:
                    taken += 1
                    self.begun[body] = self.held[body] = message["ReceiptHandle"]
                    again = int(message["Attributes"]["ApproximateReceiveCount"]) > 1
                    yield BoxTask(box, False, again, HeldMessage(self.queue, body, self.held, self.begun))
            if not found:
                return

    def _hide(self, handle: str, seconds: int) -> None:
        self.queue.client.change_message_visibility(
            QueueUrl=self.queue.url, ReceiptHandle=handle, VisibilityTimeout=seconds
        )

    def _extend(self, ended: threading.Event) -> None:
        """Keep what is held hidden from others until all has ended."""
        while not ended.wait(max(0.5, self.timeout / _RENEWALS)):
            for body, handle in list(self.held.items()):
                try:
                    self._hide(handle, self.timeout)
                except Exception as error:  # noqa: BLE001 (one that fails is tried again; the task itself goes on)
                    if body in self.held:
                        _log.warning("queue %s: %s is not kept hidden: %s", self.queue.name, body, error)


def _box_of(body: str, digest: str | None) -> BoundingBox | None:
    """Return the box that a message is, None for anything else: what others can put into a queue is only read."""
    if digest is not None and hashlib.md5(body.encode(), usedforsecurity=False).hexdigest() != digest:
        return None
    try:
        box = BoundingBox.from_string(body)
    except GeometryError:
        return None
    return box if str(box) == body else None
