"""A small assistant behind an OpenAI-compatible API, with nothing but Python's standard library.

It works out arithmetic ("what is 6 * 7?") and counts the words of everything else. The same message gets the same
answer. Put a server of your own in its place: whatever speaks this API can be hosted the same way.

    python3 server.py --port 8001
"""

import argparse
import ast
import json
import operator
import re
import signal
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "local-1"
BODY_BYTES_MAX = 4 * 1024 * 1024
# In longer messages no sum is looked for.
SUM_CHARACTERS_MAX = 500
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](value(node.left), value(node.right))
    raise ValueError("not a sum")


def answer(messages):
    asked = [text(message) for message in messages if message.get("role") == "user"]
    last = asked[-1] if asked else ""
    for found in re.findall(r"[-(\d][-+*/(). \d]*[)\d]", last) if len(last) <= SUM_CHARACTERS_MAX else []:
        try:
            tree = ast.parse(found, mode="eval").body
            if isinstance(tree, ast.BinOp):
                return f"{found} = {value(tree):.12g}"
        except ZeroDivisionError:
            return f"{found} divides by zero."
        except (SyntaxError, ValueError, OverflowError):
            continue
    words = len(last.split())
    return f"Message {len(asked)} of this conversation has {words} {'word' if words == 1 else 'words'}."


def text(message):
    content = message.get("content") or ""
    if isinstance(content, list):
        content = " ".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


class Handler(BaseHTTPRequestHandler):
    # Seconds in which a client has to send its request.
    timeout = 30

    def do_GET(self):
        if self.path == "/health":
            return self.reply(200, {"status": "ok"})
        if self.path == "/v1/models":
            return self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "local"}]})
        self.refuse(404, "there is no such path")

    def do_POST(self):
        if self.path != "/v1/chat/completions":
            return self.refuse(404, "there is no such path")
        length = self.headers.get("content-length") or ""
        if not length.isdigit():
            return self.refuse(411, "say in content-length how long the body is")
        if int(length) > BODY_BYTES_MAX:
            return self.refuse(413, f"the body has more than {BODY_BYTES_MAX} bytes")
        try:
            request = json.loads(self.rfile.read(int(length)))
            messages = [message for message in request["messages"] if isinstance(message, dict)]
        except (ValueError, KeyError, TypeError, RecursionError):
            return self.refuse(400, "expected a JSON object with a list of messages")
        said = answer(messages)
        # Words stand in for tokens: this server has no others.
        read, written = sum(len(text(message).split()) for message in messages), len(said.split())
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": MODEL}
        if request.get("stream"):
            return self.stream(head, said, usage)
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.reply(200, head | {"object": "chat.completion", "choices": [choice], "usage": usage})

    def stream(self, head, said, usage):
        self.begin(200, "text/event-stream")
        for word in re.findall(r"\S+\s*", said):
            self.chunk(head, [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}])
        self.chunk(head, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
        self.chunk(head, [], usage=usage)
        self.wfile.write(b"data: [DONE]\n\n")

    def chunk(self, head, choices, **more):
        data = json.dumps(head | {"object": "chat.completion.chunk", "choices": choices} | more)
        self.wfile.write(f"data: {data}\n\n".encode())

    def refuse(self, status, message):
        self.reply(status, {"error": {"message": message, "type": "invalid_request_error"}})

    def reply(self, status, body):
        body = json.dumps(body).encode()
        self.begin(status, "application/json", ("content-length", str(len(body))))
        self.wfile.write(body)

    def begin(self, status, kind, *headers):
        self.send_response(status)
        for name, content in [("content-type", kind), *headers]:
            self.send_header(name, content)
        self.end_headers()

    def log_message(self, format, *args):
        """Says nothing of each request: plimsoll does."""


class Server(ThreadingHTTPServer):
    # Whoever is being answered is answered before it ends.
    daemon_threads = False


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=8001)
    arguments = arguments.parse_args()
    server = Server((arguments.host, arguments.port), Handler)
    # From a thread of its own: what serves may not wait for its own end.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"ready on {arguments.host}:{arguments.port}", flush=True)
    try:
        # How soon it sees that it shall end, in seconds.
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        pass
    server.server_close()


if __name__ == "__main__":
    main()
