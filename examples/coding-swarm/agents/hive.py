"""What every program of this swarm tells Hivekeeper: it is ready, it lives, how far it is. Nothing beyond Python's standard library.

Hivekeeper sets HIVEKEEPER_ADDR, HIVEKEEPER_TOKEN, HIVEKEEPER_AGENT and HIVEKEEPER_INCARNATION; the protocol is one JSON object a line.
"""

import json
import os
import socket
import threading
import time

REFUSED_FOR_GOOD = {1002, 1003, 1004}  # bad token, stale incarnation, unsupported protocol


class Hive:
    """A session in a thread of its own, opened again whenever it is lost, for example because a new daemon took over."""

    def __init__(self):
        self.agent = os.environ.get("HIVEKEEPER_AGENT", "coding/by-hand")
        self.incarnation = int(os.environ.get("HIVEKEEPER_INCARNATION", "1"))
        self.draining = threading.Event()  # set when we are asked to finish
        self._address = os.environ.get("HIVEKEEPER_ADDR")
        # Commands that a model thinks up inherit our environment; what speaks for us need not be in it.
        self._token = os.environ.pop("HIVEKEEPER_TOKEN", "")
        self._progress = None
        self._usage = None
        self._changed = threading.Event()
        if self._address:
            threading.Thread(target=self._keep_open, daemon=True).start()

    def progress(self, **progress):
        """How far we are. Only a change counts as progress: the heartbeats that repeat it say no more than that the process lives."""
        self._progress = progress
        self._changed.set()

    def usage(self, model, input_tokens, output_tokens):
        """Tokens of this incarnation so far, as absolute totals."""
        self._usage = {
            "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": input_tokens,
            "gen_ai.usage.output_tokens": output_tokens,
        }
        self._changed.set()

    def _keep_open(self):
        pause = 0.2
        while True:
            try:
                with self._connect() as connection:
                    lines = connection.makefile("rb")
                    interval = self._open(connection, lines)
                    if interval is None:
                        return
                    pause = 0.2
                    listener = threading.Thread(target=self._listen, args=(connection, lines), daemon=True)
                    listener.start()
                    while listener.is_alive():
                        self._tell(connection)
                        self._changed.wait(interval)
                        self._changed.clear()
            except (OSError, ValueError) as why:
                print(f"hive: connection lost: {why}", flush=True)
            time.sleep(pause)
            pause = min(2 * pause, 5)

    def _connect(self):
        host, _, port = self._address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=10)

    def _open(self, connection, lines):
        """The heartbeat interval in seconds, or None when we are refused for good."""
        params = {"token": self._token, "agent": self.agent, "incarnation": self.incarnation, "protocol": 1, "capabilities": {}}
        send(connection, {"id": 1, "method": "hive/open", "params": params})
        answer = json.loads(lines.readline())
        if "result" in answer:
            connection.settimeout(None)
            return answer["result"]["heartbeat_interval_ms"] / 1000
        print(f"hive: refused: {answer['error']}", flush=True)
        if answer["error"]["code"] in REFUSED_FOR_GOOD:
            return None
        raise OSError("not opened")

    def _tell(self, connection):
        beat = {"busy": True} if self._progress is None else {"busy": True, "progress": self._progress}
        send(connection, {"method": "hive/heartbeat", "params": beat})
        if self._usage:
            send(connection, {"method": "hive/usage", "params": self._usage})

    def _listen(self, connection, lines):
        try:
            for line in lines:
                message = json.loads(line)
                if "method" in message and "id" in message:
                    send(connection, {"id": message["id"], "result": {}})
                    if message["method"] == "hive/drain":
                        self.draining.set()
        except (OSError, ValueError):
            pass
        self._changed.set()


def send(connection, message):
    connection.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
