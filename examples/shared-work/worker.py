"""A worker: claims a task, locks the file that it is about, writes it, commits it, says that it is done; and begins anew.

It may be killed anywhere. What it held goes back when its death is proven, and whoever comes next finds either a commit that names the task, and completes
it, or none, and begins from what is committed: half a file that a dead worker has left counts for nothing.
"""

import os
import subprocess
import time
from pathlib import Path

from hive_mcp import Hive, Refused

REPOSITORY = Path("work/repository")
WORK_SECONDS = float(os.environ.get("WORK_SECONDS", "1"))
ME = "{HIVEKEEPER_AGENT}#{HIVEKEEPER_INCARNATION}".format(**os.environ)


def git(*words):
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(task):
    """The commit of a task, if there is one."""
    return git("log", "--format=%h", f"--grep=^Task: {task['id']}$")


def write(task):
    """What a coding agent would do. It takes its time, and in the middle the file is broken."""
    path = REPOSITORY / task["payload"]["file"]
    lines = task["payload"]["lines"]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines[: len(lines) // 2]))
    time.sleep(WORK_SECONDS)
    path.write_text("\n".join(lines) + "\n")


def commit(hive, task):
    """Commits alone: git has one index, and whoever dies while he writes it leaves a lock file that only who holds ours may remove."""
    lock = hive.call("lock_acquire", resources=[".git"], mode="exclusive", wait_ms=60_000)
    (REPOSITORY / ".git/index.lock").unlink(missing_ok=True)
    file = task["payload"]["file"]
    git("add", file)
    git("commit", "--quiet", "-m", task["title"], "-m", f"Task: {task['id']}", "--author", f"{ME} <worker@example.invalid>", "--", file)
    hive.call("lock_release", id=lock["id"], fence=lock["fence"])


def work(hive, task):
    file = task["payload"]["file"]
    lock = hive.call("lock_acquire", resources=[file], wait_ms=60_000, note=task["title"])
    if not committed(task):
        hive.call("task_progress", id=task["id"], fence=task["claim"]["fence"], percent=50, note=f"{ME} writes {file}")
        write(task)
        commit(hive, task)
    result = {"commit": committed(task), "by": ME}
    hive.call("task_complete", id=task["id"], fence=task["claim"]["fence"], result=result)
    hive.call("lock_release", id=lock["id"], fence=lock["fence"])
    hive.call("message_send", to="*", topic="done", body=f"{task['title']} is {result['commit']}")
    print(f"done: {task['title']}", flush=True)


def read(hive):
    """What the others have written."""
    for message in hive.call("message_receive")["messages"]:
        print(f"{message['from']['agent'] if message['from'] else 'the hive'}: {message['body']}", flush=True)
        hive.call("message_ack", id=message["id"], fence=message["fence"])


def main():
    hive = Hive()
    for task in [held["task"] for held in hive.call("task_held")["predecessor"]]:
        print(f"the incarnation before held {task['title']!r}, which is {task['state']} now", flush=True)
    while True:
        read(hive)
        for task in hive.call("task_claim", wait_ms=5_000)["tasks"]:
            try:
                work(hive, task)
            except Refused as refused:
                # It is no longer ours: whoever has it now begins from what is committed.
                print(f"left {task['title']!r}: {refused}", flush=True)


main()
