"""Progress of a reconstruction: one phase after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

Phases = Callable[[str, int], AbstractContextManager[Callable[[str], object]]]
"""Called with the name of a phase and its steps; yields a function that is called after each with a note, as
`console.progress` does."""


def silent(_name: str, _steps: int) -> AbstractContextManager[Callable[[str], object]]:
    """No progress."""
    return nullcontext(lambda note: None)


@contextmanager
def counted(phases: Phases, name: str) -> Iterator[Callable[[int, int], None]]:
    """A phase as a callback (step, steps), which begins with the first call."""
    with ExitStack() as stack:
        advance: list[Callable[[str], object]] = []

        def step(_done: int, steps: int) -> None:
            if not advance:
                advance.append(stack.enter_context(phases(name, steps)))
            advance[0]("")

        yield step
