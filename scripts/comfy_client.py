"""What a program says to a ComfyUI server: queue a prompt in API form, follow it, fetch what came out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import requests

Prompt = dict[str, dict[str, Any]]
OnEvent = Callable[[dict[str, Any]], None]


class PromptRefused(RuntimeError):
    """The server did not accept a prompt. `errors` is its answer; `messages` the sentences in it."""

    def __init__(self, answer: dict[str, Any]):
        self.answer = answer
        self.node_errors: dict[str, Any] = answer.get("node_errors") or {}
        errors = [error for node in self.node_errors.values() for error in node.get("errors", [])]
        self.messages = [f"{error.get('message')}: {error.get('details')}" for error in errors]
        super().__init__("; ".join(self.messages) or json.dumps(answer.get("error")))


@dataclass(frozen=True)
class Result:
    """What became of a prompt.

    Attributes:
        status: "success", "error" or "interrupted".
        outputs: per node id what its `ui` answer held.
        error: of a failed run: exception_type, exception_message, node_id, node_type, traceback; else empty.
        cached: ids of nodes whose outputs were taken from an earlier run.
        seconds: from the start of its execution to its end, by the server's clock.
    """

    prompt_id: str
    status: str
    outputs: dict[str, Any]
    error: dict[str, Any] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    seconds: float = 0.0

    def files(self, node_id: str | None = None) -> list[dict[str, str]]:
        """Every file in the outputs, as {filename, subfolder, type}."""
        nodes = self.outputs.values() if node_id is None else [self.outputs.get(node_id, {})]
        lists = [value for node in nodes for value in node.values() if isinstance(value, list)]
        return [item for items in lists for item in items if isinstance(item, dict) and "filename" in item]


class ComfyClient:
    """`check_alive` is called while waiting, so that the death of the server ends the wait."""

    def __init__(self, url: str, check_alive: Callable[[], None] = lambda: None):
        self.url, self.check_alive = url, check_alive
        self.id = uuid.uuid4().hex

    def get(self, path: str, **parameters: Any) -> requests.Response:
        return requests.get(self.url + path, params=parameters, timeout=60)

    def object_info(self, node_id: str | None = None) -> dict[str, Any]:
        return self.get(f"/object_info/{node_id}" if node_id else "/object_info").json()

    def upload(self, path: Path, name: str | None = None) -> str:
        """Put a file into the server's input folder; what a loader node has to name it.

        The route is called image but takes any file, as the frontend's own upload buttons know.
        """
        with Path(path).open("rb") as file:
            files = {"image": (name or Path(path).name, file)}
            answer = requests.post(
                f"{self.url}/upload/image", files=files, data={"overwrite": "true"}, timeout=60
            )
        answer.raise_for_status()
        return answer.json()["name"]

    def queue(self, prompt: Prompt) -> str:
        """The id of the queued prompt.

        Raises:
            PromptRefused: a node, an input or a value in it is wrong.
        """
        body = {"prompt": prompt, "client_id": self.id}
        answer = requests.post(f"{self.url}/prompt", json=body, timeout=60)
        if not answer.ok:
            raise PromptRefused(answer.json())
        accepted = answer.json()
        if accepted.get(
            "node_errors"
        ):  # one output is fine, another is not: the server would run half a workflow
            self.cancel(accepted["prompt_id"])
            raise PromptRefused(accepted)
        return accepted["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 300) -> Result:
        """Wait until the prompt has ended, however it ended.

        Raises:
            TimeoutError: it had not ended after `timeout` seconds; it is interrupted.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            entry = self.get(f"/history/{prompt_id}").json().get(prompt_id)
            if entry is not None:  # written only when the run is over, unlike the websocket's last event
                return result_of(prompt_id, entry)
            self.check_alive()
            time.sleep(0.05)
        self.interrupt()
        raise TimeoutError(f"the workflow had not ended after {timeout:.0f} s")

    def run(self, prompt: Prompt, *, timeout: float = 300, on_event: OnEvent | None = None) -> Result:
        """Queue and wait; `on_event` gets every websocket message of the run, in another thread."""
        with listening(self, on_event):
            return self.wait(self.queue(prompt), timeout)

    def interrupt(self) -> None:
        """Stop what runs now."""
        requests.post(f"{self.url}/interrupt", json={}, timeout=60).raise_for_status()

    def cancel(self, prompt_id: str, timeout: float = 60) -> None:
        """Take the prompt out of the queue, or stop it if it runs; return when it is gone.

        Raises:
            TimeoutError: it still runs after `timeout` seconds.
        """
        requests.post(f"{self.url}/queue", json={"delete": [prompt_id]}, timeout=60).raise_for_status()
        requests.post(f"{self.url}/interrupt", json={"prompt_id": prompt_id}, timeout=60).raise_for_status()
        end = time.monotonic() + timeout
        while self.is_queued(prompt_id):
            self.check_alive()
            if time.monotonic() > end:
                raise TimeoutError(f"the workflow still runs {timeout:.0f} s after it was cancelled")
            time.sleep(0.05)

    def is_queued(self, prompt_id: str) -> bool:
        """Whether it waits or runs."""
        queue = self.get("/queue").json()
        return any(prompt_id == entry[1] for entry in queue["queue_running"] + queue["queue_pending"])

    def free(self) -> None:
        """Unload the models and forget cached outputs."""
        body = {"unload_models": True, "free_memory": True}
        requests.post(f"{self.url}/free", json=body, timeout=60).raise_for_status()

    def view(self, file: dict[str, str]) -> bytes:
        """The bytes of a file that a `Result` names."""
        wanted = {key: file.get(key, "") for key in ("filename", "subfolder", "type")}
        answer = self.get("/view", **wanted)
        answer.raise_for_status()
        return answer.content


def result_of(prompt_id: str, entry: dict[str, Any]) -> Result:
    """Read an entry of /history."""
    messages = entry["status"].get("messages", [])
    events: dict[str, Any] = {name: data for name, data in messages}
    names = ("execution_success", "execution_error", "execution_interrupted")
    last = next((name for name in names if name in events), "execution_success")
    times = [data["timestamp"] for _, data in messages if "timestamp" in data]
    return Result(
        prompt_id=prompt_id,
        status=last.removeprefix("execution_"),
        outputs=entry.get("outputs", {}),
        error=events.get("execution_error", {}),
        cached=tuple(events.get("execution_cached", {}).get("nodes", ())),
        seconds=(times[-1] - times[0]) / 1000 if times else 0.0,
    )


@contextlib.contextmanager
def listening(client: ComfyClient, on_event: OnEvent | None):
    """Inside, `on_event` gets the server's JSON messages. Threaded: the caller may have an event loop."""
    if on_event is None:
        yield
        return
    loop = asyncio.new_event_loop()
    connected = threading.Event()

    async def listen() -> None:
        address = client.url.replace("http", "ws", 1) + f"/ws?clientId={client.id}"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            connected.set()
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    on_event(json.loads(message.data))

    task = loop.create_task(listen())
    thread = threading.Thread(target=lambda: run_until_cancelled(loop, task), daemon=True)
    thread.start()
    connected.wait(timeout=10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(timeout=10)


def run_until_cancelled(loop: asyncio.AbstractEventLoop, task: asyncio.Task) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
