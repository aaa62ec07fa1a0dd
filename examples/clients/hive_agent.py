"""A client for agents that Hivekeeper starts; copy this file. It needs Python 3.8 and nothing else.

No call blocks, raises or ends the program. A thread connects, beats as often as the daemon asks for, sends what was told, and comes back when the
connection is lost. What was not answered is sent again then, so a line may come twice. What finds no place in the queue is dropped, the oldest log
lines first, and the agent's log says how many. Without the daemon's variables (a program started by hand) nothing is sent.
"""

import contextlib
import json
import os
import random
import socket
import threading
import time

QUEUE_MAX = 1000
# A log text is cut here; any other message that is longer than the second is dropped. A batch of so many fits into a line of 1 MiB.
TEXT_CHARS_MAX = 8 * 1024
MESSAGE_BYTES_MAX = 20 * 1024
BATCH_MAX = 50
# Seconds that an answer may take before the connection counts as lost.
ANSWER_WITHIN = 15.0
# Heartbeats that new progress brings forward come no faster.
BEAT_APART = 0.1
PAUSE_MIN, PAUSE_MAX = 0.1, 5.0
REFUSED_FOR_GOOD = (1002, 1003)


class Agent:
    """The session of this program. `on_drain` is called once, on a thread of its own, when the daemon asks to finish. SIGTERM comes along: who wants
    to finish by itself has to handle or ignore it."""

    def __init__(self, on_drain=None, environ=os.environ):
        self._wake = threading.Condition()
        self._queue, self._in_flight, self._answers = [], (None, []), []
        self._beat, self._beat_changed, self._on_drain = "{}", False, on_drain
        self._sent = self._untold = self.dropped = 0
        self._lost, self._ended = False, False
        try:
            host, _, port = environ["HIVEKEEPER_ADDR"].rpartition(":")
            self._address = (host.strip("[]"), int(port))
            self._open = {
                "token": environ["HIVEKEEPER_TOKEN"],
                "agent": environ["HIVEKEEPER_AGENT"],
                "incarnation": int(environ["HIVEKEEPER_INCARNATION"]),
                "protocol": 1,
                "capabilities": {},
            }
            threading.Thread(target=self._run, name="hive", daemon=True).start()
        except (KeyError, ValueError, RuntimeError):
            self._ended = True

    def log(self, text, level="info"):
        """`level` is one of trace, debug, info, warn, error."""
        self._tell("hive/log", {"level": level, "line": str(text)[:TEXT_CHARS_MAX]})

    def metric(self, name, value, unit=None, **attributes):
        self._tell("hive/metric", {"name": name, "value": value, "unit": unit, "attributes": attributes})

    def usage(self, totals):
        """Absolute totals by OpenTelemetry's names, `gen_ai.usage.input_tokens` and so on, and `cost_usd`."""
        self._tell("hive/usage", totals)

    def event(self, kind, **more):
        self._tell("hive/event", {**more, "kind": kind})

    def batch(self, messages):
        """Several (method, parameters) at once, in order. Whatever waits is sent as one batch anyway."""
        for method, params in messages:
            self._tell(method, params)

    def progress(self, progress, busy=True):
        """Anything that changes when work goes on. It goes with the next heartbeat, which it brings forward."""
        text = self._text({"progress": progress, "busy": busy})
        with self._wake:
            self._beat, self._beat_changed = (text, True) if text else (self._beat, self._beat_changed)
            self._wake.notify_all()

    def flush(self, within):
        """Waits until the daemon has everything that was told, at most so many seconds; says whether it has."""
        with self._wake:
            self._wake.wait_for(lambda: self._ended or not (self._queue or self._in_flight[1]), within)
            return not (self._ended or self._queue or self._in_flight[1])

    @staticmethod
    def _text(params):
        try:
            text = json.dumps(params, allow_nan=False)
            return text if len(text) <= MESSAGE_BYTES_MAX else None
        except (TypeError, ValueError, RecursionError):
            return None

    def _tell(self, method, params):
        # Made into text at once: whoever told it may change it later.
        text = self._text(params)
        with self._wake:
            if self._ended:
                return
            if text is not None:
                self._queue.append((method, text))
            if text is None or len(self._queue) > QUEUE_MAX:
                if text is not None:
                    self._queue.pop(next((n for n, one in enumerate(self._queue) if one[0] == "hive/log"), 0))
                self.dropped, self._untold = self.dropped + 1, self._untold + 1
            self._wake.notify_all()

    def _run(self):
        self._pause = PAUSE_MIN
        while True:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                if not self._serve():
                    break
            # Between half of it and the whole, so that a swarm does not come back as one.
            time.sleep(self._pause * random.uniform(0.5, 1.0))
            self._pause = min(self._pause * 2, PAUSE_MAX)
        with self._wake:
            self._ended, self._queue, self._in_flight = True, [], (None, [])
            self._wake.notify_all()

    def _serve(self):
        """One connection; whether there is to be another when it ends."""
        with socket.create_connection(self._address, timeout=ANSWER_WITHIN) as connection:
            connection.sendall(self._request(0, "hive/open", json.dumps(self._open)))
            lines = connection.makefile("rb")
            answer = json.loads(lines.readline(65536))
            if answer.get("error", {}).get("code") in REFUSED_FOR_GOOD:
                return False
            interval = answer["result"]["heartbeat_interval_ms"] / 1000
            # Every heartbeat is answered: who says nothing for longer is gone.
            connection.settimeout(interval + ANSWER_WITHIN)
            self._pause = PAUSE_MIN
            with self._wake:
                self._queue[:0] = self._in_flight[1]
                self._in_flight, self._lost = (None, []), False
            reader = threading.Thread(target=self._listen, args=(lines,), daemon=True)
            reader.start()
            try:
                self._talk(connection, interval)
            finally:
                # This ends the reader, which must not speak of the next connection.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                reader.join()
            return True

    def _talk(self, connection, interval):
        beaten = time.monotonic() - interval
        while True:
            with self._wake:
                apart = min(BEAT_APART, interval) if self._beat_changed else interval
                rest = beaten + apart - time.monotonic()
                if rest <= 0:
                    beaten = time.monotonic()
                out = b"".join(self._due(rest <= 0))
                if not out and not self._lost:
                    self._wake.wait(rest)
                if self._lost:
                    return
            connection.sendall(out)

    def _due(self, beats):
        out, self._answers = self._answers, []
        if beats:
            self._sent, self._beat_changed = self._sent + 1, False
            out.append(self._request(self._sent, "hive/heartbeat", self._beat))
        if not self._in_flight[1] and (self._queue or self._untold):
            batch, self._queue = self._queue[:BATCH_MAX], self._queue[BATCH_MAX:]
            if self._untold:
                line = f"messages dropped on the way to Hivekeeper: {self._untold}"
                batch.insert(0, ("hive/log", json.dumps({"level": "warn", "line": line})))
                self._untold = 0
            self._sent += 1
            self._in_flight = (self._sent, batch)
            items = ",".join(f'{{"method":{json.dumps(method)},"params":{text}}}' for method, text in batch)
            out.append(self._request(self._sent, "hive/batch", f'{{"notifications":[{items}]}}'))
        return out

    @staticmethod
    def _request(number, method, params):
        return f'{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{params}}}\n'.encode()

    def _listen(self, lines):
        while not self._lost:
            try:
                message = json.loads(lines.readline(65536))
            except (OSError, ValueError):
                message = None
            with self._wake:
                if not isinstance(message, dict):
                    self._lost = True
                elif "method" in message:
                    answer = {"jsonrpc": "2.0", "id": message.get("id"), "result": {}}
                    self._answers.append(json.dumps(answer).encode() + b"\n")
                    if message["method"] == "hive/drain" and self._on_drain:
                        threading.Thread(target=self._on_drain, daemon=True).start()
                        self._on_drain = None
                elif message.get("id") == self._in_flight[0]:
                    self._in_flight = (None, [])
                self._wake.notify_all()
