"""Makes a repository and ten tasks, starts the hive, kills a worker in the middle of a task, and looks at what has come of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from hive_mcp import Hive, Refused

REPOSITORY = Path("work/repository")
PATIENCE = 120
SHAPES = {
    "square": "side * side", "cube": "side * side * side", "rectangle": "a * b", "triangle": "a * b / 2", "circle": "3.14159 * r * r",
    "sphere": "4 / 3 * 3.14159 * r**3", "cylinder": "3.14159 * r * r * h", "cone": "3.14159 * r * r * h / 3", "ring": "3.14159 * (b * b - a * a)",
}

# Where another hive is has no bearing on this one.
for name in [name for name in os.environ if name.startswith("HIVEKEEPER_")]:
    del os.environ[name]


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def git(*words):
    return run("git", "-C", str(REPOSITORY), *words)


def until(what, look):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    sys.exit(f"waited {PATIENCE} s for: {what}")


def repository():
    shutil.rmtree("work", ignore_errors=True)
    REPOSITORY.mkdir(parents=True)
    git("init", "--quiet", "--initial-branch=main")
    git("config", "user.name", "shared-work")
    git("config", "user.email", "worker@example.invalid")
    git("commit", "--quiet", "--allow-empty", "-m", "Begin")


def tasks():
    """Nine files, and behind all of them the one that names them."""
    made = []
    for name, formula in SHAPES.items():
        words = sorted({word for word in formula.replace("*", " ").replace("(", " ").replace(")", " ").split() if word.isalpha()})
        lines = [f"def {name}({', '.join(words)}):", f'    """The size of a {name}."""', f"    return {formula}"]
        made.append({"title": f"Write {name}", "payload": {"file": f"shapes/{name}.py", "lines": lines}})
    lines = [f"from .{name} import {name} as {name}" for name in SHAPES]
    whole = {"title": "Name them all", "payload": {"file": "shapes/__init__.py", "lines": lines}, "depends_on": list(range(len(made)))}
    return [task | {"group": "shapes", "category": "code"} for task in [*made, whole]]


def busy(hive):
    """A worker that holds the lock of a file, and has written half of it."""
    for lock in hive.call("lock_list", held=True)["locks"]:
        file = lock["resources"][0]
        if file != ".git" and (REPOSITORY / file).exists():
            return lock["holder"]["agent"], lock["note"], file
    return None


def pid(worker):
    agents = json.loads(run("hivekeeper", "ps", "--json"))["agents"]
    return next(agent["pid"] for agent in agents if agent["name"] == worker)


def all_done(hive):
    group = hive.call("progress_report")["groups"][0]
    return group["done"] == group["total"]


def main():
    repository()
    with open("work/daemon.log", "w") as log:
        daemon = subprocess.Popen(["hivekeeper", "serve", "--config", "config.toml"], stdout=log, stderr=log)
    try:
        until("the daemon is ready", lambda: subprocess.run(["hivekeeper", "ready"], capture_output=True).returncode == 0)
        hive = Hive("--swarm", "team", "--as", "operator")
        created = hive.call("task_create", tasks=tasks(), key="shapes")["tasks"]
        print(f"created {len(created)} tasks")
        worker, title, file = until("a worker is in the middle of a task", lambda: busy(hive))
        os.kill(pid(worker), signal.SIGKILL)
        print(f"killed {worker} with -9 in the middle of {title!r}, with half of {file} written")
        until("all tasks are done", lambda: all_done(hive))
        print(run("hivekeeper", "report"))
        log = git("log", "--format=%(trailers:key=Task,valueonly,separator=)").split()
        if sorted(log) != sorted(task["id"] for task in created):
            sys.exit(f"each task should have one commit:\n{git('log', '--format=%h %an %s')}")
        run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import shapes; assert shapes.cube(3) == 27")
        if changed := git("status", "--porcelain"):
            sys.exit(f"something was left behind:\n{changed}")
        print(git("log", "--format=%h %an: %s"))
        print("every task was done once, and what was written works")
    except Refused as refused:
        sys.exit(f"refused: {refused}")
    finally:
        daemon.terminate()
        daemon.wait()


main()
