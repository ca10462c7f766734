"""A thread that computes one value ahead: the next batch is drawn while the device still works on the last one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """A function of integers, of which one call may run ahead in a thread.

    Its values must depend on the arguments alone, so that it makes no difference whether a call ran ahead. An error of
    a call is raised where its value is asked for.
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self.function = function
        self.pool: ThreadPoolExecutor | None = None
        self.pending: tuple[tuple[int, ...], Future[T]] | None = None

    def begin(self, *args: int) -> None:
        """Begin the call in the thread. A call that was begun before and not asked for is forgotten."""
        self.forget()
        if self.pool is None:
            self.pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self.pending = args, self.pool.submit(self.function, *args)

    def __call__(self, *args: int) -> T:
        """The function's value, from the thread if it was begun there."""
        if self.pending is not None and self.pending[0] == args:
            future, self.pending = self.pending[1], None
            return future.result()
        self.forget()                          # so that two calls never run at once
        return self.function(*args)

    def close(self) -> None:
        """End the thread, when its call has ended. The next `begin` starts another one."""
        self.forget()
        if self.pool is not None:
            self.pool.shutdown()
            self.pool = None

    def forget(self) -> None:
        """Let the call end, and forget its value."""
        if self.pending is not None:
            (_, future), self.pending = self.pending, None
            if not future.cancel():
                wait([future])
