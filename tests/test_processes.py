from __future__ import annotations

import os
from pathlib import Path

import pytest

from timnet.processes import cores

QUOTAS = {
    "version 2": ("0::/\n", {"cpu.max": "150000 100000"}, 2),
    "version 2, none": ("0::/\n", {"cpu.max": "max 100000"}, 64),
    "version 2, a part of a core": ("0::/\n", {"cpu.max": "20000 100000"}, 1),
    "version 2, of a group above": (
        "0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3,
    ),
    "version 2, in a container that sees the host's path": (
        "0::/docker/1234\n", {"cpu.max": "400000 100000"}, 4,
    ),
    "version 1": (
        "5:memory:/x\n4:cpu,cpuacct:/x\n",
        {"cpu,cpuacct/x/cpu.cfs_quota_us": "250000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
        3,
    ),
    "version 1, none": (
        "4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64,
    ),
    "version 1, in a container": (
        "4:cpu,cpuacct:/docker/12\n",
        {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
        2,
    ),
    "damaged": ("0::/\n", {"cpu.max": "many"}, 64),
    "no groups": (None, {}, 64),
}  # fmt: skip


@pytest.mark.parametrize("case", QUOTAS)
def test_a_quota_bounds_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    groups, files, expected = QUOTAS[case]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert cores(tmp_path) == expected


def test_affinity_bounds_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert cores(tmp_path) == 2
