"""The one exception for what a user can get wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any


class UserError(Exception):
    """A mistake in a setting, a file or a command, told in one message.

    The message names the key, the value, what is allowed and the file. The command line prints it
    without a traceback and exits with code 2.
    """


DIVERGED = 3


class RunError(RuntimeError):
    """A run had to stop: told in one message, the last good state is kept.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class NonFiniteError(RunError):
    """A reward, loss or gradient is not a finite number; nothing was changed by it."""

    exit_code = DIVERGED


class RatioError(RunError):
    """Before the first optimizer step of a batch some ratio is not 1."""

    exit_code = DIVERGED


class RunInterruptedError(RunError):
    """A signal to stop arrived and the state was saved."""

    exit_code = 75  # EX_TEMPFAIL: run the same command again


class OutOfMemoryError(RunError):
    """The device's memory is full; the message says which setting to lower."""


class StoppedElsewhereError(RunError):
    """Another process of the same run stopped, and says why itself."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


SHOWN = 200  # characters of a wrong value


def shown(value: Any) -> str:
    """A wrong value as a message shows it: in one line, and only its beginning."""
    return shortened(repr(value))


def shortened(text: Any, length: int = SHOWN) -> str:
    """A text in one line, or its first characters where it is longer."""
    word = str(text)
    word = word if len(word) <= length else f"{word[:length]}..."
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in word)


def suggest(word: str, allowed: Iterable[str]) -> str:
    """`" Did you mean 'grpo'?"` for the nearest allowed word, or an empty string."""
    near = get_close_matches(word, list(allowed), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


REASON = 500  # characters of what a library says
DEVICE_ERRORS = ("OutOfMemoryError", "AcceleratorError")  # torch's, and no file's fault


@contextmanager
def reading(problem: str) -> Iterator[None]:
    """Inside, whatever a library raises over a file becomes a `UserError`: `problem`, then why.

    Over a damaged file transformers, diffusers and tokenizers raise anything: KeyError, TypeError,
    a bare Exception. Their calls alone belong inside; a fault of ours would lose its traceback.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ in DEVICE_ERRORS:
            raise
        said = " ".join(str(error).split())
        # Of these the text alone says little: `'added_tokens'`.
        bare = isinstance(error, LookupError | TypeError | AttributeError | AssertionError)
        reason = f"{type(error).__name__}: {said}" if bare else said or type(error).__name__
        raise UserError(f"{problem}: {shortened(reason, REASON)}") from None
