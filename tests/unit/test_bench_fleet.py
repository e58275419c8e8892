"""The model of a fleet: exact where a case can be worked out, near where tiers can be played."""

import random
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import OrderedDict
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench import simulate
from bench.fleet import Fleet, flow, popularity
from bench.validation import Setting, compare

ROOT = Path(__file__).parents[2]
SMALL = Fleet(
    hosts=4,
    rate=100,
    catalogue=400,
    s=1.0,
    ttl_s=60,
    is_shared=False,
    workers=2,
    local_entries=400,
    host_entries=400,
)


def test_one_question_is_asked_once_in_its_time_by_whoever_shares() -> None:
    one = replace(SMALL, catalogue=1, local_entries=1, host_entries=1)
    assert flow(one).upstream_per_s == pytest.approx(4 * 25 / (1 + 25 * 60))
    shared = flow(replace(one, is_shared=True))
    assert shared.upstream_per_s == pytest.approx(100 / (1 + 100 * 60))
    assert shared.hit_share == pytest.approx(1 - 1 / 6001)
    # Each of the four hosts looks it up once in its time; a landing for each call.
    assert shared.redis_per_s == pytest.approx(5 / 60, rel=0.01)
    assert shared.fresh == pytest.approx(1, abs=0.001)


def test_alone_a_host_gains_nothing_by_redis() -> None:
    alone = replace(SMALL, hosts=1)
    assert flow(alone).hit_share == pytest.approx(flow(replace(alone, is_shared=True)).hit_share)


def test_each_host_more_asks_more_unless_all_share() -> None:
    calls = {
        (hosts, is_shared): flow(replace(SMALL, hosts=hosts, is_shared=is_shared)).upstream_per_s
        for hosts in (1, 2, 64)
        for is_shared in (False, True)
    }
    assert calls[1, False] < calls[2, False] < calls[64, False]
    assert calls[1, True] == pytest.approx(calls[64, True])


@pytest.mark.parametrize("s", [0.8, 1.0, 1.2])
def test_ranks_in_bins_weigh_what_single_ones_do(s: float) -> None:
    bins = popularity(50_000, s)
    assert sum(many for many, _ in bins) == 50_000
    assert sum(many * share for many, share in bins) == pytest.approx(1)
    weights = [rank**-s for rank in range(1, 50_001)]
    share = sum(weights[:1000]) / sum(weights)
    assert sum(share for _, share in bins[:1000]) == pytest.approx(share, rel=1e-4)
    assert len(bins) < 2_000


class Played:
    """The tiers themselves, one question after the other."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.calls = self.local_hits = self.look_ups = 0
        self._shared: dict[int, float] = {}
        self._hosts: list[OrderedDict[int, float]] = [OrderedDict() for _ in range(fleet.hosts)]
        whole = fleet.hosts * fleet.workers
        self._local: list[OrderedDict[int, float]] = [OrderedDict() for _ in range(whole)]

    def ask(self, worker: int, question: int, now_s: float) -> None:
        fleet = self._fleet
        local, host = self._local[worker], self._hosts[worker // fleet.workers]
        if now_s < local.get(question, 0):
            self.local_hits += 1
            local.move_to_end(question)
            return
        until_s = host.get(question, 0.0)
        if until_s <= now_s:
            until_s = self._look_up(question, now_s)
            host.pop(question, None)
            host[question] = until_s
            if len(host) > fleet.host_entries:
                host.popitem(last=False)
        local.pop(question, None)
        local[question] = until_s
        if len(local) > fleet.local_entries:
            local.popitem(last=False)

    def _look_up(self, question: int, now_s: float) -> float:
        if self._fleet.is_shared:
            self.look_ups += 1
            if (until_s := self._shared.get(question, 0.0)) > now_s:
                return until_s
        self.calls += 1
        self._shared[question] = now_s + self._fleet.ttl_s
        return self._shared[question]


def played(fleet: Fleet, questions: int) -> Played:
    """Tiers that are full, then the same after so many questions more."""
    dice = random.Random(5)
    tiers, now_s = Played(fleet), 0.0
    weights = [rank**-fleet.s for rank in range(1, fleet.catalogue + 1)]
    for number, asked in enumerate(
        dice.choices(range(fleet.catalogue), weights, k=2 * questions), 1
    ):
        now_s += dice.expovariate(fleet.rate)
        tiers.ask(dice.randrange(fleet.hosts * fleet.workers), asked, now_s)
        if number == questions:
            before = tiers.calls, tiers.local_hits, tiers.look_ups
    tiers.calls -= before[0]
    tiers.local_hits -= before[1]
    tiers.look_ups -= before[2]
    return tiers


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize(
    ("local_entries", "host_entries", "ttl_s"),
    [(400, 400, 60), (40, 400, 60), (40, 120, 60), (40, 120, 1000), (400, 400, 2)],
)
def test_the_model_is_near_what_the_tiers_do(
    local_entries: int, host_entries: int, ttl_s: float, *, is_shared: bool
) -> None:
    fleet = replace(
        SMALL,
        local_entries=local_entries,
        host_entries=host_entries,
        ttl_s=ttl_s,
        is_shared=is_shared,
    )
    expected, questions = flow(fleet), 30_000
    found = played(fleet, questions)
    promised = expected.hit_share - (1 - found.calls / questions)
    assert -0.03 < promised < 0.01
    assert expected.local_share == pytest.approx(found.local_hits / questions, abs=0.06)
    if is_shared:
        ops = (found.look_ups + found.calls) / questions * fleet.rate
        assert expected.redis_per_s == pytest.approx(ops, rel=0.15)


def test_the_committed_drawings_are_what_the_command_draws(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "simulate", "--folder", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "64 hosts, 1,000,000/s" in done.stdout
    for name in (simulate.HITS, simulate.CALLS):
        drawn = (tmp_path / name).read_text()
        assert drawn == (ROOT / "docs" / name).read_text()
        assert len(ET.fromstring(drawn).findall(".//{http://www.w3.org/2000/svg}polyline")) == 18


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_two_real_servers_call_as_often_as_the_model_says(tmp_path: Path) -> None:
    setting = Setting(rate=200, catalogue=500, ttl_s=4, lifetimes=3)
    for is_shared in (False, True):
        scratch = tmp_path / str(is_shared)
        scratch.mkdir()
        found = compare(setting, is_shared=is_shared, scratch=scratch)
        print(f"shared {is_shared}: counted {found.counted:.4f}, model {found.model:.4f}")
        assert abs(found.error) < 0.15
