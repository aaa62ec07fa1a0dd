"""The swarm's board of issues: an MCP server that hands out each issue once, and the command `board` that is its client.

  board.py serve            the server (streamable HTTP, on loopback inside the container)
  board.py list | finish    what a coding agent types in its shell

The server alone writes board.json and makes the shared repository. It believes nobody: an issue is finished when its branch is there.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from hive import Hive

PORT = 8001
URL = f"http://127.0.0.1:{PORT}/mcp"
WORK = Path(os.environ.get("CODING_WORK", "/work"))
HERE = Path(__file__).resolve().parent.parent
ORIGIN = WORK / "origin.git"


class Board:
    """Who works on what. Each change is on the disk before it is answered."""

    def __init__(self):
        self.lock = threading.Lock()
        self.file = WORK / "board.json"
        if self.file.exists():
            self.issues = json.loads(self.file.read_text())
        else:
            issues = json.loads((HERE / "issues.json").read_text())
            self.issues = [{**issue, "agent": None, "finished": False} for issue in issues]
            self.save()

    def save(self):
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.issues, indent=2) + "\n")
        new.replace(self.file)

    def of(self, agent):
        return next((issue for issue in self.issues if issue["agent"] == agent and not issue["finished"]), None)

    def take(self, agent):
        with self.lock:
            issue = self.of(agent) or next((issue for issue in self.issues if issue["agent"] is None), None)
            if issue and issue["agent"] is None:
                issue["agent"] = agent
                self.save()
            return issue

    def finish(self, agent):
        with self.lock:
            issue = self.of(agent) or refuse(f"{agent} has no open issue")
            branch = f"issue-{issue['id']}"
            commits = git("--git-dir", ORIGIN, "rev-list", f"main..{branch}", "--", check=False).split()
            if not commits:
                refuse(f"no commit on the branch {branch} of the shared repository: push it first")
            issue |= {"finished": True, "commits": commits}
            self.save()
            return issue


def refuse(why):
    raise ValueError(why)


def git(*words, check=True):
    done = subprocess.run(["git", *map(str, words)], check=check, text=True, capture_output=True)
    return done.stdout


def make_origin():
    """The shared repository, from the project in the image; in one step, so that what is there is whole."""
    if ORIGIN.exists():
        return
    new = WORK / f"origin.new.{os.getpid()}"
    git("init", "-q", "-b", "main", new)
    git("-C", new, "config", "user.name", "board")
    git("-C", new, "config", "user.email", "board@localhost")
    git("-C", HERE / "project", "--git-dir", new / ".git", "--work-tree", ".", "add", ".")
    git("-C", new, "commit", "-q", "-m", "The toolbox, with three open issues")
    git("clone", "-q", "--bare", new, f"{new}.git")
    os.rename(f"{new}.git", ORIGIN)
    subprocess.run(["rm", "-rf", new], check=True)


def serve():
    from mcp.server.mcpserver import MCPServer

    make_origin()
    board = Board()
    server = MCPServer("board", instructions="The issues of this project. Each is worked on by one agent.", log_level="WARNING")

    @server.tool()
    def take(agent: str) -> str:
        """The issue that this agent works on, else the next open one, as JSON; null when none is left."""
        return json.dumps(board.take(agent))

    @server.tool()
    def finish(agent: str) -> str:
        """Closes the agent's issue, if its branch has been pushed."""
        issue = board.finish(agent)
        return f"issue #{issue['id']} is finished"

    @server.tool(name="list")
    def show() -> str:
        """Every issue, a line each."""
        return "\n".join(f"#{i['id']} {state(i)}: {i['title']}" for i in board.issues)

    threading.Thread(target=announce, daemon=True).start()
    server.run("streamable-http", host="127.0.0.1", port=PORT, stateless_http=True, json_response=True)


def state(issue):
    return "finished" if issue["finished"] else f"taken by {issue['agent']}" if issue["agent"] else "open"


def announce():
    """Opens the session once the server listens: `ready = "session"` makes the others wait for it."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    print(f"board: MCP at {URL}", flush=True)
    Hive()


def call(tool, **arguments):
    """One call of a tool of the board; raises RuntimeError with the board's words when it refuses."""
    return asyncio.run(_call(tool, arguments))


async def _call(tool, arguments):
    from mcp import Client

    async with Client(URL, read_timeout_seconds=30) as client:
        result = await client.call_tool(tool, arguments)
    text = "".join(part.text for part in result.content if part.type == "text")
    if result.is_error:
        raise RuntimeError(text)
    return text


def main(words):
    agent = os.environ.get("HIVEKEEPER_AGENT", "coding/by-hand")
    match words:
        case ["serve"]:
            serve()
        case ["list"]:
            print(call("list"))
        case ["finish"]:
            print(call("finish", agent=agent))
        case _:
            sys.exit("usage: board list | finish")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RuntimeError as why:
        sys.exit(f"board: {why}")
