"""Everything that can go wrong, in four families that never mix.

    EksimError
    ├── InputError        the user's: a scenario, option or file that cannot be used      exit code 2
    │   └── NotReached    … a step waits for what does not come about                     exit code 2
    ├── Standstill        the user's: what a scenario sets going never lets time go on    exit code 2
    └── BrokenInvariant   ours: the simulation contradicts itself                         exit code 70
    Refused               not an exception: EC2's or the CNI's answer inside the simulated world

Every class survives ``type(e)(*e.args)`` and pickling, because SimPy rebuilds failed events so and workers pickle them.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_OK = 0
EXIT_EXPECTATION = 1
EXIT_INPUT = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class EksimError(Exception):
    """Base of eksim's own exceptions."""

    exit_code = EXIT_BUG


class InputError(EksimError):
    """Something the user gave cannot be used; raised only at the doors (files, options, the public API).

    ``message`` says what was found; ``expected`` what would have been right; ``nearest`` the closest valid value;
    ``file``, ``line`` (1-based; 0: unknown) and ``field`` (dotted path) where.
    """

    exit_code = EXIT_INPUT

    def __init__(
        self, message: str, file: str = "", line: int = 0, field: str = "", expected: str = "", nearest: str = ""
    ) -> None:
        super().__init__(message, file, line, field, expected, nearest)
        self.message = message
        self.file = file
        self.line = line
        self.field = field
        self.expected = expected
        self.nearest = nearest

    def __str__(self) -> str:
        where = self.file + (f":{self.line}" if self.line else "")
        return f"{where}: {self.told}" if where else self.told

    @property
    def told(self) -> str:
        """The message without file and line, for where those are known."""
        text = f"{self.field}: {self.message}" if self.field else self.message
        if self.expected:
            text += f"; expected {self.expected}"
        if self.nearest:
            text += f"; did you mean {self.nearest}?"
        return text


class NotReached(InputError):
    """What a step waits for did not come about: known only after the run has come so far."""


class Standstill(EksimError):
    """Something goes on for ever within one instant, as what takes no time can."""

    exit_code = EXIT_INPUT


class BrokenInvariant(EksimError):
    """The simulation contradicts itself: a bug of eksim, to be reported with the replay command in the message."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The simulated world says no: a value that is recorded and reacted to, never raised.

    ``code`` is the real component's own (``InsufficientFreeAddressesInSubnet``, …), ``message`` its text.
    """

    code: str
    message: str = ""
