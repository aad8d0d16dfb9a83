"""Processes that start within milliseconds: forked from a server that has imported PyTorch once."""

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

METHOD = "forkserver"
_server = get_context(METHOD)
_server.set_forkserver_preload(["pytest", "hessalign.training.trainer"])  # the package itself is lazy


def start(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a process that calls a function of a module."""
    process = _server.Process(target=function, args=arguments)
    process.start()
    return process
