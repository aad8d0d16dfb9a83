"""The command ``hessalign``: in this process, and as a process of its own.

A process takes seconds to import PyTorch and what else a command needs. So commands run in this process, and
only what another one alone can show gets one: signals, a full disk, several at once, clean streams.
"""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import typer
from typer.testing import CliRunner

from hessalign.cli.main import app
from hessalign.cli.terminal import show_warnings_as_sentences
from hessalign.exceptions import HessalignWarning

COMMAND = [sys.executable, "-m", "hessalign"]
TERMINAL = {"COLUMNS": "300", "NO_COLOR": "1"}
"""So wide that no sentence is broken."""


def hessalign(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process; what it does not handle is raised."""
    return in_this_process(app, "hessalign", *arguments, **environment)


def in_this_process(
    group: typer.Typer, name: str, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of any group so."""
    words = [str(argument) for argument in arguments]
    with _as_in_a_process():
        result = CliRunner(env={**TERMINAL, **environment}).invoke(group, words, prog_name=name)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)


def start_process(*arguments: object, **options) -> "subprocess.Popen[str]":
    """Start the command as a process of its own."""
    environment = {**os.environ, **TERMINAL, **options.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], **{**pipes, **options})


def run_process(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, to its end."""
    with start_process(*arguments, **options) as process:
        try:
            output, errors = process.communicate(timeout=600)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def words(text: str) -> str:
    """Without the frame and the line breaks of a terminal."""
    return " ".join(text.replace("│", " ").split())


@contextmanager
def _as_in_a_process() -> Iterator[None]:
    """Undo what a command changes for its whole process; show its own warnings, raise others."""
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=HessalignWarning)
        show_warnings_as_sentences()
        try:
            yield
        finally:
            torch.set_num_threads(threads)
