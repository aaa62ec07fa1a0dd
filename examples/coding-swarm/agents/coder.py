"""One coding agent: takes an issue from the board, lets mini-swe-agent work on it in a clone of its own, and ends when no issue is left.

It may be killed at any moment. What it needs to go on lies in its directory: the clone, and the conversation as it was after the last whole step.
The successor shows the model that conversation and says that it was interrupted; the repository shows what was done.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ |= {
    "MSWEA_SILENT_STARTUP": "1",
    "MSWEA_COST_TRACKING": "ignore_errors",  # a local model has no price
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the price list that it ships, instead of one from the network
}

import litellm
from minisweagent.agents.default import DefaultAgent
from minisweagent.config import get_config_from_spec
from minisweagent.environments.local import LocalEnvironment
from minisweagent.models.litellm_model import LitellmModel

import board
from hive import Hive

WORK = Path(os.environ.get("CODING_WORK", "/work"))
MODEL = os.environ.get("MODEL_NAME", "openai/stand-in")
API_BASE = os.environ.get("MODEL_API_BASE", "http://127.0.0.1:8000/v1")
KEY_FILE = os.environ.get("MODEL_API_KEY_FILE")
# A whole issue takes the stand-in nine steps; a model that needs ten times as many is lost.
STEPS_MAX = 90

TASK = """issue #{id}: {title}

{text}

The repository is your working directory. Commit your change with a message that begins with "Fix #{id}:", push it to the branch issue-{id} of origin,
then run `board finish`. `board list` shows all issues."""
INTERRUPTED = (
    "You were interrupted: the process ended and has been started again. The last command above has been carried out; one more may have been, "
    "wholly or in part. Look at the state of the repository (git status, git log), then go on."
)


class Coder(DefaultAgent):
    """mini-swe-agent's own loop, with a conversation that outlives the process and a word to Hivekeeper at each step."""

    def __init__(self, model, environment, *, hive, before, **config):
        super().__init__(model, environment, **config)
        self.hive = hive
        self.before = before
        self.tokens = [0, 0]

    def add_messages(self, *messages):
        # `run` opens a conversation; if the predecessor left one, that goes on instead.
        if not self.messages and self.before:
            messages = (*self.before, {"role": "user", "content": INTERRUPTED})
        return super().add_messages(*messages)

    def query(self):
        if self.hive.draining.is_set():
            raise SystemExit(0)
        message = super().query()
        usage = message["extra"]["response"].get("usage") or {}
        self.tokens[0] += usage.get("prompt_tokens") or 0
        self.tokens[1] += usage.get("completion_tokens") or 0
        self.hive.usage(MODEL, *self.tokens)
        return message

    def execute_actions(self, message):
        self.hive.progress(step=len(self.messages))
        say(message.get("content") or "")
        for action in message["extra"]["actions"]:
            say(f"$ {action['command'].splitlines()[0]}")
        answers = super().execute_actions(message)
        for answer in answers:
            say(f"  returned {answer['extra']['returncode']}")
        return answers

    def save(self, path, *extra):
        """After each whole step; in one step itself, so that what is there can be read."""
        if path:
            new = path.with_suffix(".new")
            super().save(new, *extra)
            new.replace(path)


def conversation_of_predecessor(path):
    if not path.exists():
        return []
    messages = json.loads(path.read_text())["messages"]
    # A conversation goes on from an answer to a command.
    while messages and messages[-1]["role"] in ("exit", "assistant"):
        messages.pop()
    return messages


def clone(home, name):
    """The agent's own clone, in one step; of a predecessor's everything stays, but for the lock of a git that was killed."""
    repository = home / "repository"
    if not repository.exists():
        new = home / "repository.new"
        subprocess.run(["rm", "-rf", new], check=True)
        run("git", "clone", "-q", board.ORIGIN, new)
        run("git", "-C", new, "config", "user.name", name)
        run("git", "-C", new, "config", "user.email", f"{name}@localhost")
        new.rename(repository)
    # Hivekeeper starts us when our predecessor's whole process tree is proven dead, so nobody holds these.
    for lock in (repository / ".git").rglob("*.lock"):
        lock.unlink()
    return repository


def work_on(issue, home, repository, hive):
    title = f"issue #{issue['id']}"
    branch = f"issue-{issue['id']}"
    path = home / f"{branch}.json"
    before = conversation_of_predecessor(path)
    if before:
        say(f"{title}: going on after {sum(m['role'] == 'tool' for m in before)} steps of a predecessor")
    else:
        say(f"{title}: {issue['title']}")
        run("git", "-C", repository, "switch", "-q", "-C", branch, "origin/main")
    config = get_config_from_spec("mini.yaml")
    model_kwargs = {**config["model"]["model_kwargs"], "timeout": 300}
    if API_BASE:
        model_kwargs["api_base"] = API_BASE
    model = LitellmModel(**{**config["model"], "model_name": MODEL, "model_kwargs": model_kwargs})
    environment = LocalEnvironment(cwd=str(repository), env=config["environment"]["env"], timeout=120)
    limits = {"step_limit": STEPS_MAX, "cost_limit": 0, "output_path": path}
    agent = Coder(model, environment, hive=hive, before=before, **{**config["agent"], **limits})
    result = agent.run(TASK.format(**issue))
    if result.get("exit_status") != "Submitted":
        sys.exit(f"{title}: given up: {result.get('exit_status')}")


def take(name):
    """The board may be on its way up again."""
    for _ in range(30):
        try:
            return json.loads(board.call("take", agent=name))
        except Exception as why:
            say(f"board: {why!r}")
            time.sleep(1)
    sys.exit("the board does not answer")


def run(*words):
    subprocess.run([str(word) for word in words], check=True)


def say(text):
    print(text, flush=True)


def main():
    hive = Hive()
    # Out of reach of what the model runs, and not among the settings that are saved with a conversation. The stand-in asks for none.
    litellm.api_key = Path(KEY_FILE).read_text().strip() if KEY_FILE else "none"
    signal.signal(signal.SIGTERM, lambda *_: hive.draining.set())
    name = hive.agent.rpartition("/")[2]
    home = WORK / name
    home.mkdir(exist_ok=True)
    repository = clone(home, name)
    last = None
    while not hive.draining.is_set():
        issue = take(hive.agent)
        if issue is None:
            say("no open issue is left")
            return
        if issue["id"] == last:
            sys.exit(f"issue #{last} was submitted and is not finished")
        last = issue["id"]
        work_on(issue, home, repository, hive)


if __name__ == "__main__":
    main()
