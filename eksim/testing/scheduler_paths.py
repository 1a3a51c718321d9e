"""The scheduler's two paths side by side: each attempt by node classes and by a look at every node.

Used by the replay of recordings and by the tests on random clusters.
"""

from __future__ import annotations

from typing import Any

from eksim.kube.scheduler.cycle import Attempt, Scheduler
from eksim.kube.scheduler.framework import Framework
from eksim.kube.scheduler.queued_pod import QueuedPod
from eksim.kube.scheduler.sampling import num_feasible_nodes_to_find


class Difference(Exception):
    """The replay and the recording part here."""


class CheckedScheduler(Scheduler):
    """The plain path in full detail, with the fast path beside it, which must find the same."""

    def schedule_pod(self, framework: Framework, queued: QueuedPod, *, detail: bool) -> Attempt:
        """Both ways; raises Difference where they part."""
        order = self.cache.update_snapshot()
        table = self.class_table(framework, queued.info) if order else None
        found: Any = None
        if table is not None and table.feasible:
            enough = num_feasible_nodes_to_find(len(order), framework.percentage_of_nodes_to_score)
            verdict = table.verdict(self.next_start_node_index, enough)
            names = sorted(table.places.member(verdict, i).name for i in range(verdict.count))
            next_start = (verdict.start + verdict.evaluated) % len(order)
            found = (verdict.feasible, next_start, verdict.best, names)
        elif table is not None:
            diagnosis, message, nominated = table.refusal(framework.claims)
            found = (0, message, nominated, sorted(diagnosis.plugins))
        attempt = super().schedule_pod(framework, queued, detail=detail)
        if found is not None:
            plain: Any
            if attempt.feasible:
                scores = attempt.scores
                names = sorted(scores.top if scores else [node.name for node in attempt.feasible])
                best = max(scores.total) if scores else None
                plain = (len(attempt.feasible), attempt.next_start, best, names)
            else:
                assert attempt.diagnosis is not None
                plain = (0, attempt.message, attempt.nominated, sorted(attempt.diagnosis.plugins))
            if plain != found:
                raise Difference(f"the paths part: plain {plain}, by classes {found}")
        return attempt
