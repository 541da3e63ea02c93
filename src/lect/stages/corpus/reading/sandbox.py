# SPDX-License-Identifier: Apache-2.0
"""Run a function on hostile bytes in a worker process that can neither hang nor eat the machine.

One worker serves many calls; it is started again only after it died. The time limit is an alarm whose default
action kills the worker even inside C code; the memory limit is on its address space.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import struct
import subprocess
import sys
from types import TracebackType
from typing import IO, Self

HEAD = struct.Struct("<BQ")  # status, length
DONE, FAILED = 0, 1


class Broken(Exception):
    """The function gave nothing: ``timeout``, ``memory``, ``crash``, or the name of the exception it raised."""


class Sandbox:
    """A worker that calls ``module:function`` (bytes in, bytes out) under limits."""

    def __init__(self, function: str, *, memory_bytes: int, seconds: float) -> None:
        self._command = [sys.executable, "-m", __name__, function, str(memory_bytes), str(seconds)]
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def call(self, payload: bytes) -> bytes:
        """What the function makes of ``payload``; Broken when it fails, hangs or dies."""
        worker = self._worker or self._start()
        assert worker.stdin is not None and worker.stdout is not None
        try:
            worker.stdin.write(HEAD.pack(DONE, len(payload)) + payload)
            worker.stdin.flush()
            status, answer = receive(worker.stdout)
        except (BrokenPipeError, EOFError):
            raise Broken(self._cause()) from None
        if status == DONE:
            return answer
        raise Broken(answer.decode("utf-8", "replace"))

    def _start(self) -> subprocess.Popen[bytes]:
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p), OMP_NUM_THREADS="1")
        pipe = subprocess.PIPE
        self._worker = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        return self._worker

    def _cause(self) -> str:
        worker = self._worker
        assert worker is not None
        code = worker.wait()
        self.close()
        return "timeout" if code == -signal.SIGALRM else "memory" if code == -signal.SIGKILL else "crash"

    def close(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def receive(stream: IO[bytes]) -> tuple[int, bytes]:
    """One message from the other side; EOFError when there is no whole one."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    status, length = HEAD.unpack(head)
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    return status, body


def serve(function: str, memory_bytes: int, seconds: float) -> None:
    """The worker: answer calls on standard input until it closes."""
    import resource

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the function prints must not be taken for an answer
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            _, payload = receive(sys.stdin.buffer)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            status, answer = DONE, call(payload)
        except MemoryError:
            status, answer = FAILED, b"memory"
        except Exception as error:
            status, answer = FAILED, type(error).__name__.encode()
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(HEAD.pack(status, len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
