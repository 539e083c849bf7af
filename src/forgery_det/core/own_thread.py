"""Load a library away from the calling thread.

OpenVINO gives the thread that loads a model a signal stack of its own (`sigaltstack`), and takes it away when the model
goes. A process whose main thread was left with it dies of the next signal that it handles: the kernel cannot deliver
it. In a thread that ends at once the change reaches nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(function: Callable[[], T]) -> T:
    """Call a function in a new thread and return what it returns, or raise what it raises.

    Example:
        >>> import threading
        >>> in_own_thread(threading.get_ident) == threading.get_ident()
        False
    """
    with ThreadPoolExecutor(max_workers=1) as loader:
        return loader.submit(function).result()
