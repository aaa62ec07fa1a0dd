#!/usr/bin/env python3
"""A reporting agent without dependencies: opens a session, tells its progress, reconnects, finishes when it is asked to.

Hivekeeper sets HIVEKEEPER_ADDR, HIVEKEEPER_TOKEN, HIVEKEEPER_AGENT and HIVEKEEPER_INCARNATION.
Write your own work where it says "one piece of work".
"""

import json
import os
import random
import socket
import sys
import time

REFUSED_FOR_GOOD = {1002: "bad token", 1003: "stale incarnation", 1004: "unsupported protocol"}


class Lost(Exception):
    """The connection ended; another may be opened."""


class Session:
    """One connection to the daemon, open after construction."""

    def __init__(self):
        host, _, port = os.environ["HIVEKEEPER_ADDR"].rpartition(":")
        self.buffer = b""
        try:
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
        except OSError as why:
            raise Lost(why) from why
        self.send(
            id=1,
            method="hive/open",
            params={
                "token": os.environ["HIVEKEEPER_TOKEN"],
                "agent": os.environ["HIVEKEEPER_AGENT"],
                "incarnation": int(os.environ["HIVEKEEPER_INCARNATION"]),
                "protocol": 1,
                "capabilities": {},
            },
        )
        answer = self.receive(10)
        if answer is None:
            raise Lost("no answer to hive/open")
        if "error" in answer:
            if answer["error"]["code"] in REFUSED_FOR_GOOD:
                sys.exit(f"refused: {answer['error']}")
            raise Lost(answer["error"])
        self.interval = answer["result"]["heartbeat_interval_ms"] / 1000

    def send(self, **message):
        try:
            self.socket.settimeout(10)
            self.socket.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        except OSError as why:
            raise Lost(why) from why

    def tell(self, method, **params):
        """A notification: nothing comes back."""
        self.send(method=method, params=params)

    def receive(self, seconds):
        """The next message, or None when the time is over."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return None
            except OSError as why:
                raise Lost(why) from why
            if not data:
                raise Lost("the daemon closed the connection")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def requests(self, seconds):
        """Answers the daemon's requests for a while; true when it asks us to finish."""
        deadline = time.monotonic() + seconds
        while message := self.receive(max(0, deadline - time.monotonic())):
            if "method" in message and "id" in message:
                self.send(id=message["id"], result={})
                if message["method"] == "hive/drain":
                    return True
        return False


def main():
    done, pause = 0, 0.2
    while True:
        try:
            session = Session()
            print("session open", flush=True)
            pause = 0.2
            session.tell("hive/event", kind="connected", pid=os.getpid())
            while True:
                done += 1  # one piece of work
                print(f"piece {done} is done", flush=True)
                session.tell("hive/heartbeat", progress={"done": done}, busy=True)
                session.tell("hive/metric", name="pieces", value=done, unit="{piece}")
                if session.requests(min(1.0, session.interval)):
                    print("asked to finish", flush=True)
                    return
        except Lost as why:
            print(f"connection lost: {why}", file=sys.stderr, flush=True)
            time.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(pause * 2, 10)


if __name__ == "__main__":
    main()
