"""What AWS's runtime does around a handler: an event in, an answer or an error out, and then the process is frozen."""

import json
import os
import signal
import sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from controlplane.lambda_entry import lambda_handler  # noqa: E402 (what it prints must not be taken for an answer)

for line in sys.stdin:
    try:
        answer = {"answer": lambda_handler(json.loads(line), None)}
    except Exception as error:  # noqa: BLE001
        answer = {"errorType": type(error).__name__, "errorMessage": str(error)}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    os.kill(os.getpid(), signal.SIGSTOP)
