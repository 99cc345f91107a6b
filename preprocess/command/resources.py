"""What this process may use of the machine: its processors and memory, by the affinity and the control group."""

import os
from pathlib import Path

JOB_BYTES = (
    240 * 2**20
)  # of a process that cuts the largest photographs of EyePACS, 5,184 x 3,456 px
PIXELS_SHARE = (
    0.7  # of the free memory, at most, goes to the squares' pixels; the rest is for the net
)
CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED_BYTES = 2**60  # a limit of version 1 that is none


def count_processors() -> int:
    """Return how many processors this process may use at a time, at least 1.

    A container's quota counts: beyond it, more processes only wait for each other.
    """
    if hasattr(os, "sched_getaffinity"):
        n_processors = len(os.sched_getaffinity(0))
    else:  # macOS
        n_processors = os.cpu_count() or 1
    quota = _read_quota()
    if quota is not None:
        n_processors = min(n_processors, int(quota))
    return max(1, n_processors)


def has_quota() -> bool:
    """Return whether the control group has a quota of processors."""
    return _read_quota() is not None


def count_jobs() -> int:
    """Return how many processes for photographs have a processor and JOB_BYTES of memory each, at least 1."""
    n_fitting = read_free_memory() // JOB_BYTES
    return max(1, min(count_processors(), n_fitting))


def read_free_memory() -> int:
    """Return how many bytes of memory are free: of the machine's, and of what the control group may have."""
    free_bytes = _read_machine_memory()
    limit = _read_memory_limit()
    if limit is None:
        return free_bytes
    return max(0, min(free_bytes, limit))


def fits_memory(size_bytes: int) -> bool:
    """Return whether squares of so many bytes fit into the free memory and leave room for a net."""
    return size_bytes < PIXELS_SHARE * read_free_memory()


def _read_machine_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            fields = dict(line.split(":") for line in handle)
    except FileNotFoundError:  # not Linux; the kernel's caches count as taken
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(fields["MemAvailable"].split()[0]) * 1024


def _read_quota() -> float | None:
    """Return the processors that the control group has a quota of, the least of all above it; None without one."""
    quotas = []
    for folder in _list_groups("cpu"):
        words = _read_words(folder / "cpu.max")  # version 2: "150000 100000", or "max 100000"
        if len(words) == 2 and words[0] != "max":
            quotas.append(int(words[0]) / int(words[1]))
        used_us = _read_words(folder / "cpu.cfs_quota_us")  # version 1; -1: no quota
        period_us = _read_words(folder / "cpu.cfs_period_us")
        if used_us and period_us and int(used_us[0]) > 0:
            quotas.append(int(used_us[0]) / int(period_us[0]))
    return min(quotas, default=None)


def _read_memory_limit() -> int | None:
    """Return the bytes that the control group, and those above it, leave to this process; None without a limit.

    Pages of files, which the kernel gives up first, do not count as taken.
    """
    left = []
    for folder in _list_groups("memory"):
        for limit_name, used_name, cached_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = _read_words(folder / limit_name)
            used = _read_words(folder / used_name)
            if not (limit and used) or limit[0] == "max" or int(limit[0]) >= UNLIMITED_BYTES:
                continue
            words = _read_words(folder / "memory.stat")
            fields = dict(zip(words[::2], words[1::2], strict=False))
            left.append(int(limit[0]) - int(used[0]) + int(fields.get(cached_name, 0)))
    return min(left, default=None)


def _list_groups(controller: str) -> list[Path]:
    """Return the folders of this process's control group for a controller, and of all above it, as far as they show.

    In a container the path may be one of the host's: then the mounted folder is the container's own.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []
    folders = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = CGROUPS / controller if controllers else CGROUPS
        folder = top / name.lstrip("/")
        while folder != top:
            folders.append(folder)
            folder = folder.parent
        folders.append(top)
    return folders


def _read_words(path: Path) -> list[str]:
    """Return the words of a file of the kernel; none if it is not there, as at the top of all groups."""
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
