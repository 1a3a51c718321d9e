"""The clock keeps absolute times, the order within an instant, and SimPy's processes in one sequence."""

from eksim.engine.clock import CONTROLLER, NETWORK, NODE_AGENT, SCHEDULER, Clock, Grid


def test_equal_instants_go_by_rank_then_by_the_order_of_arming():
    clock = Clock()
    seen = []
    clock.arm(1.0, SCHEDULER, seen.append, "scheduler")
    clock.arm(1.0, CONTROLLER, seen.append, "controller 1")
    clock.call_at(1.0, NODE_AGENT, seen.append, "kubelet")
    clock.arm(1.0, CONTROLLER, seen.append, "controller 2")
    clock.run_until(1.0)
    assert seen == ["kubelet", "controller 1", "controller 2", "scheduler"]


def test_processes_and_timers_share_one_order():
    clock = Clock()
    seen = []

    def process():
        seen.append(("start", clock.now))
        yield clock.sleep_until(2.0, NETWORK)
        seen.append(("answer", clock.now))
        yield clock.sleep(0.5)
        seen.append(("end", clock.env.now))

    clock.process(process())
    clock.arm(2.0, NODE_AGENT, seen.append, "kubelet at 2")
    clock.run_until(10.0)
    assert seen == [("start", 0.0), ("answer", 2.0), "kubelet at 2", ("end", 2.5)]
    assert clock.now == 10.0


def test_a_cancelled_timer_does_nothing_and_an_armed_one_happens_once():
    clock = Clock()
    seen = []
    timer = clock.call_after(1.0, NODE_AGENT, seen.append, "cancelled")
    kept = clock.call_after(1.0, NODE_AGENT, seen.append, "kept")
    timer.cancel()
    assert kept.pending
    clock.run_until(5.0)
    assert seen == ["kept"]
    assert not kept.pending


def test_what_arises_at_an_instant_belongs_to_it():
    clock = Clock()
    seen = []

    def first():
        clock.arm(clock.now, SCHEDULER, seen.append, clock.now)

    clock.arm(3.0, NODE_AGENT, first)
    clock.arm(4.0, NODE_AGENT, first)
    assert clock.run_instant()
    assert (seen, clock.now, clock.next_time()) == ([3.0], 3.0, 4.0)


def test_the_past_cannot_be_armed():
    clock = Clock()
    clock.run_until(7.0)
    seen = []
    clock.arm(1.0, NODE_AGENT, lambda: seen.append(clock.now))
    clock.run_until(8.0)
    assert seen == [7.0]


def test_grid_points_do_not_drift():
    grid = Grid(0.0, 5.001)
    assert grid.at_or_after(5.001 * 100_000) == 5.001 * 100_000
    assert grid.after(5.001 * 7) == 5.001 * 8
    assert grid.at_or_after(12.0) == 5.001 * 3
    when = 0.0
    for k in range(1, 2000):
        when = grid.after(when)
        assert when == k * 5.001
