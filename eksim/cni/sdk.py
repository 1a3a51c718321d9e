"""The AWS SDK as ipamd uses it, and ipamd's own tries with waits between them.

The SDK retries throttling and EC2's own failures by itself, so ipamd hears of them only when that has failed; the
recordings' daemon was told at once, which is a setting. Called by :mod:`eksim.cni.awsutils`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from eksim.aws.ec2 import Request
from eksim.cni.node import NodeIpam
from eksim.engine.clock import Clock
from eksim.engine.streams import Stream
from eksim.errors import Refused

T = TypeVar("T")
Steps = Generator[Any, Any, T]

#: Longest nominal wait between two tries of ipamd's. Source: awsutils.go (maxENIBackoffDelay), v1.23.1.
MAX_BACKOFF_S = 60.0

#: What the SDK retries by itself. Source: aws-sdk-go-v2/aws/retry/standard.go, aws-sdk-go/aws/request/retryer.go.
RETRYABLE = (
    "InternalError",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "Unavailable",
)


class Waits:
    """The jitter of waits between tries; a replay takes the waits from its record instead."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def between(self, what: str, node: NodeIpam, tries: int, nominal_s: float, jitter: float) -> float:
        """The wait after try number ``tries`` (1 …): the nominal one and up to ``jitter`` of it more.

        Source: amazon-vpc-cni-k8s/pkg/utils/retry/backoff.go:AddJitter, v1.23.1.
        """
        return round(nominal_s * (1.0 + jitter * self._stream.random()), 6)


class Sdk:
    """Requests and tries, for all nodes."""

    def __init__(self, clock: Clock, waits: Waits, stream: Stream, *, retries: bool = True) -> None:
        self.clock = clock
        self.waits = waits
        self._stream = stream
        self._retries = retries

    def request(self, node: NodeIpam, call: Callable[..., Request[T]], *args: Any) -> Steps[T | Refused]:
        """One request through the SDK, which retries throttling and EC2's own failures by itself."""
        retries = node.rules.sdk_retries if self._retries else 0
        tries = 0
        while True:
            result = yield from call(node.instance, *args)
            if not isinstance(result, Refused):
                return result
            if tries >= retries or result.code not in RETRYABLE:
                return self.text(node, result)
            yield self.clock.sleep(self._backoff(node, tries))
            tries += 1

    def _backoff(self, node: NodeIpam, tries: int) -> float:
        """Seconds before the SDK's next try.

        Source: aws-sdk-go-v2/aws/retry/jitter_backoff.go (20 s at most); aws-sdk-go/aws/client/default_retryer.go
        (throttling: 0.5 s and as much again at random, doubling).
        """
        share = self._stream.random()
        if node.rules.sdk == "v2":
            return float(round(min(share * 2**tries, 20.0), 6))
        return float(round((0.5 + 0.5 * share) * 2 ** min(tries, 8), 6))

    @staticmethod
    def text(node: NodeIpam, error: Refused) -> Refused:
        """The SDK's wording of an API error."""
        words = "api error " if node.rules.sdk == "v2" else ""
        return Refused(error.code, f"{words}{error.code}: {error.message}")

    def retry(
        self,
        what: str,
        node: NodeIpam,
        tries_max: int,
        first_s: float,
        jitter: float,
        make: Callable[[], Steps[Refused | None]],
    ) -> Steps[Refused | None]:
        """Try until it works, waits doubling up to a minute, none after the last. Source: retry.go:NWithBackoffCtx."""
        tries = 0
        wait_s = first_s
        while True:
            error = yield from make()
            tries += 1
            if error is None or tries == tries_max:
                return error
            yield self.clock.sleep(self.waits.between(what, node, tries, wait_s, jitter))
            wait_s = min(MAX_BACKOFF_S, wait_s * 2.0)
