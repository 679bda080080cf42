"""A stub of a language model over HTTP: it speaks OpenAI's Responses API, and does what the last message says.

    python -m tests.conformance.workflows.run_llm PORT

`use TOOL JSON` (one a line) calls tools, `reply TEXT` gives that text, `recall` tells all that the user has said so far.
After tools it tells what they returned. Each request is noted in the diary.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.conformance.workflows import marks

USAGE = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 5,
}


def output_of(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the model answers to a conversation."""
    last = items[-1]
    if last.get("type") == "function_call_output":
        results = []
        for item in reversed(items):
            if item.get("type") != "function_call_output":
                break
            results.append(item["output"])
        return [message("tools said: " + " | ".join(reversed(results)))]
    text = last["content"]
    if text.startswith("use "):
        calls = [line.removeprefix("use ").split(" ", 1) for line in text.splitlines()]
        return [
            {
                "type": "function_call",
                "id": f"fc_{n}",
                "call_id": f"call_{n}",
                "name": name,
                "arguments": arguments,
                "status": "completed",
            }
            for n, (name, arguments) in enumerate(calls)
        ]
    if text == "recall":
        return [message(" | ".join(item["content"] for item in items if item.get("role") == "user"))]
    return [message(text.removeprefix("reply "))]


def message(text: str) -> dict[str, Any]:
    """Return a message of the assistant."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def response(output: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a whole response."""
    fixed = {"object": "response", "created_at": 0, "status": "completed", "parallel_tool_calls": True}
    return {
        "id": "resp_1",
        "model": "stub",
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE,
        "output": output,
        **fixed,
    }


def stream_of(output: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the events of a streamed response: a text comes word by word."""
    for index, item in enumerate(output):
        if item["type"] == "message":
            where = {"item_id": item["id"], "output_index": index, "content_index": 0, "logprobs": []}
            for word in item["content"][0]["text"].split(" "):
                yield {"type": "response.output_text.delta", "delta": word + " ", **where}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": response(output)}


class Model(BaseHTTPRequestHandler):
    """Answers one connection."""

    def do_GET(self) -> None:
        self._send("text/plain", b"here")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        marks.note("llm", "asked", last=asked["input"][-1], stream=asked["stream"])
        output = output_of(asked["input"])
        if not asked["stream"]:
            self._send("application/json", json.dumps(response(output)).encode())
            return
        events = [{**event, "sequence_number": n} for n, event in enumerate(stream_of(output))]
        lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
        self._send("text/event-stream", "".join(lines).encode())

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Model).serve_forever()
