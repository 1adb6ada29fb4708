"""A user at a terminal: runs a program on one, waits for what it shows and types what the user would.

Arguments: the program and its arguments. Standard input: JSON, a list of [what has to be seen, what is typed then].
Standard output: everything that was shown. Ends with the program's exit code, or with 99 when something was not seen in time.
"""
import json
import os
import pty
import select
import sys
import time

SEEN_WITHIN_SECONDS = 60

steps = json.load(sys.stdin)
child, terminal = pty.fork()
if child == 0:
    os.environ["TERM"] = "xterm-256color"
    os.execvp(sys.argv[1], sys.argv[1:])

shown = b""
looked_at = 0


def read(until):
    """Takes what the program shows; answers when it asks where the cursor is, as terminals do."""
    global shown
    ready, _, _ = select.select([terminal], [], [], max(0.0, until - time.monotonic()))
    if not ready:
        return False
    try:
        data = os.read(terminal, 65536)
    except OSError:
        return False
    shown += data
    for _ in range(data.count(b"\x1b[6n")):
        os.write(terminal, b"\x1b[1;1R")
    return bool(data)


for expected, typed in steps:
    until = time.monotonic() + SEEN_WITHIN_SECONDS
    while shown.find(expected.encode(), looked_at) < 0:
        if not read(until):
            sys.stdout.buffer.write(shown)
            print(f"\n{expected!r} was not seen", file=sys.stderr)
            os.kill(child, 9)
            sys.exit(99)
    looked_at = shown.find(expected.encode(), looked_at) + len(expected.encode())
    os.write(terminal, typed.encode())

until = time.monotonic() + SEEN_WITHIN_SECONDS
while read(until):
    pass
if time.monotonic() >= until:
    print("the program did not end", file=sys.stderr)
    os.kill(child, 9)
_, status = os.waitpid(child, 0)
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(status))
