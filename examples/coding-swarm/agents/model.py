"""A STAND-IN for a language model. It is no model: it knows the three issues of this example by heart and nothing else.

It answers `POST /v1/chat/completions` as an OpenAI-compatible server does, so that the example runs without network, key or cost, and it takes
MODEL_THINK_SECONDS (2) for each answer, so that there is time to kill an agent in mid-work. It keeps nothing between two requests: the next step
follows from the conversation that it is sent, so an agent that begins anew or goes on after a crash is answered sensibly.
"""

import json
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hive import Hive

PORT = 8000
THINK_SECONDS = float(os.environ.get("MODEL_THINK_SECONDS", "2"))

# For each issue: the module, and what it must be.
SOLUTIONS = {
    "1": (
        "slug",
        '''"""Names for addresses."""

import re


def slug(text):
    """Letters and digits in lower case, everything else as single hyphens between them."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))
''',
    ),
    "2": (
        "roman",
        '''"""Roman numerals."""

NUMERALS = [
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
    (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
]


def roman(number):
    """The numeral of a positive number."""
    text = ""
    for value, numeral in NUMERALS:
        count, number = divmod(number, value)
        text += numeral * count
    return text
''',
    ),
    "3": (
        "median",
        '''"""The middle of some numbers."""


def median(numbers):
    """The middle one in order; of an even count the mean of the two in the middle."""
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
''',
    ),
}


def commands(issue):
    """Every command that this stand-in knows."""
    module, text = SOLUTIONS[issue]
    path = f"toolbox/{module}.py"
    return {
        "look": "git status --short && git log --oneline -3 && ls -R toolbox tests",
        "read": f"cat {path} tests/test_{module}.py",
        "test": f"python3 -m unittest -q tests.test_{module}",
        "fix": f"cat > {path} <<'END'\n{text}END",
        "commit": f"git commit -q -m 'Fix #{issue}: {module}' {path}",
        "push": f"git push -q origin HEAD:issue-{issue}",
        "finish": "board finish",
        "submit": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",
    }


def next_step(messages):
    """The thought and the command that follow from a conversation."""
    issue = re.search(r"issue #(\d+)", text_of(next(m for m in messages if m["role"] == "user")))
    if not issue or issue[1] not in SOLUTIONS:
        raise ValueError("this is a stand-in that knows only the issues of examples/coding-swarm")
    issue = issue[1]
    known = commands(issue)
    # What was done before an interruption counts only as far as the repository shows it.
    since = max(index for index, message in enumerate(messages) if message["role"] == "user")
    step, succeeded, output = None, True, ""
    for message in messages[since:]:
        for call in message.get("tool_calls") or []:
            said = json.loads(call["function"]["arguments"])["command"]
            step = next((name for name, command in known.items() if command == said), None)
        if message["role"] == "tool":
            output = text_of(message)
            succeeded = re.search(r'"returncode": 0\b', output) is not None
    thought, follows = decide(issue, step, succeeded, output)
    return thought, known[follows]


def decide(issue, step, succeeded, output):
    """One step after another; where the work stands is read from what the last command wrote."""
    module = SOLUTIONS[issue][0]
    if step is None:
        return "Let me see where the work stands.", "look"
    if step == "look" and f"Fix #{issue}:" in output:
        return "The fix is committed already, so what is left is to hand it over.", "push"
    if step == "look" and f" M toolbox/{module}.py" in output:
        return "There is an uncommitted change, so let me test it.", "test"
    if step == "look":
        return "Nothing has been changed yet, so let me read the code and its test.", "read"
    if step == "read":
        return "Let me run the test first, to see it fail.", "test"
    if step == "test" and not succeeded:
        return "The test fails as the issue says, so let me mend the code.", "fix"
    if step == "fix":
        return "Now the test again.", "test"
    if step == "test":
        return "The test passes, so let me commit.", "commit"
    if step == "commit":
        return "Now the branch goes to the shared repository.", "push"
    if step == "push" and succeeded:
        return "The board must know.", "finish"
    if step == "finish" and succeeded:
        return "All is done.", "submit"
    return "That failed, so let me look again.", "look"


def text_of(message):
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def completion(request):
    """An answer in OpenAI's form. Tokens are words, counted, so that usage is a real number if not a real tokenizer's."""
    thought, command = next_step(request["messages"])
    arguments = json.dumps({"command": command})
    call = {"id": f"call_{len(request['messages'])}", "type": "function", "function": {"name": "bash", "arguments": arguments}}
    words_in = sum(len(text_of(message).split()) for message in request["messages"])
    words_out = len(thought.split()) + len(command.split())
    return {
        "id": f"stand-in-{time.time_ns()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "stand-in",
        "choices": [
            {"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": thought, "tool_calls": [call]}}
        ],
        "usage": {"prompt_tokens": words_in, "completion_tokens": words_out, "total_tokens": words_in + words_out},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/chat/completions":
            return self.answer(404, {"error": {"message": f"no {self.path} here", "type": "not_found"}})
        time.sleep(THINK_SECONDS)
        try:
            self.answer(200, completion(request))
        except (ValueError, KeyError, StopIteration) as why:
            self.answer(400, {"error": {"message": str(why), "type": "invalid_request_error"}})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        with self.server.counted:
            self.server.answers += 1
            self.server.hive.progress(answers=self.server.answers)


def main():
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    server.counted, server.answers = threading.Lock(), 0
    # Only now: `ready = "session"` in the swarm's document makes the others wait until somebody listens here.
    server.hive = Hive()
    print(f"stand-in, no model: listening on 127.0.0.1:{PORT}, {THINK_SECONDS} s an answer", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
