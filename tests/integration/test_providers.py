"""Kinds of providers, each through broker and worker, opposite the simulator or a server that writes down what it is sent."""

import contextlib
import http.server
import json
import threading

from harness import http_request, program

PRICES = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}

CHAT_ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "from afar"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}


class Recorder(http.server.ThreadingHTTPServer):
    """Answers each request with the next of its replies, the last one for ever; keeps (path, headers, body)."""

    def __init__(self, *replies):
        self.replies, self.seen, self.lock = list(replies), [], threading.Lock()
        super().__init__(("127.0.0.1", 0), Recorder.Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with self.server.lock:
                self.server.seen.append((self.path, self.headers, json.loads(body)))
                replies = self.server.replies
                status, headers, reply = replies.pop(0) if len(replies) > 1 else replies[0]
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass


@contextlib.contextmanager
def recorder(*replies):
    server = Recorder(*replies)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def start(cluster, provider, model="m", environment=None, **model_members):
    """A broker and a worker with one provider and one model."""
    cluster.config = {"providers": [{"name": "p", **provider}],
                      "models": [{"name": model, "provider": "p", **PRICES, **model_members}],
                      "cache": {"mode": "off"}}
    cluster.start_broker(environment=environment)
    cluster.start_worker(environment=environment)


# ------------------------------------------------------------------------------------------------ by configuration


def test_headers_query_key_and_path_are_those_of_the_configuration(cluster):
    with recorder((200, {}, CHAT_ANSWER)) as server:
        environment = {"THE_KEY": "k-1", "THE_TOKEN": "t-2"}
        start(cluster, {"base_url": server.url + "/base/", "api_key": "${THE_KEY:-}", "key_header": "X-Key",
                        "headers": ["X-Title: a title", "X-Token: ${THE_TOKEN:-none}"], "query": "api-version=2024-10-21",
                        "paths": {"chat.completions": "/for/{model}/chat"}},
              environment=environment, provider_model="org/m 1")
        done = cluster.cli("submit", "--model", "m", "hello")
        assert done.returncode == 0 and "from afar" in done.stdout, done
        path, headers, body = server.seen[0]
        assert path == "/base/for/org%2Fm%201/chat?api-version=2024-10-21"
        assert headers["X-Key"] == "k-1" and headers["Authorization"] is None
        assert headers["X-Title"] == "a title" and headers["X-Token"] == "t-2"
        assert headers["Idempotency-Key"] and headers.get_all("Content-Type") == ["application/json"]
        assert body["model"] == "org/m 1"


def test_a_key_in_authorization_is_a_bearer(cluster):
    with recorder((200, {}, CHAT_ANSWER)) as server:
        start(cluster, {"base_url": server.url, "type": "openai", "api_key": "k", "key_header": "authorization"})
        assert cluster.cli("submit", "--model", "m", "hello").returncode == 0
        path, headers, _ = server.seen[0]
        assert path == "/chat/completions" and headers.get_all("Authorization") == ["Bearer k"]
