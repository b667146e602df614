"""How fast a cluster notices that a node is silent, and how long workers wait for one another.

Ray's head asks every node for a sign of life: `period` after an answer, waiting `timeout` for the next, and gives the
node up after `threshold` misses in a row. Ray's own values, 3 s, 10 s and 5, leave training hanging on a frozen node
for up to 65 s; ours take at most 18 s, and a node that is merely busy has 5 s for each of three answers.
"""

from collections.abc import Mapping

SETTINGS = {
    "RAY_health_check_initial_delay_ms": 5000,
    "RAY_health_check_period_ms": 1000,
    "RAY_health_check_timeout_ms": 5000,
    "RAY_health_check_failure_threshold": 3,
    "ALEXVGG_COLLECTIVE_SECONDS": 180,  # `alexvgg.engine.world` reads it; torch's own is half an hour
}


def network_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that every node must be started with; each may be overridden by `environment`."""
    return {name: environment.get(name, str(value)) for name, value in SETTINGS.items()}


def notice_seconds(settings: Mapping[str, str]) -> float:
    """The longest that a silent node goes unnoticed."""
    period, timeout, threshold = (
        int(settings[f"RAY_health_check_{name}"]) for name in ("period_ms", "timeout_ms", "failure_threshold")
    )
    return threshold * (period + timeout) / 1000


def describe(settings: Mapping[str, str]) -> str:
    """One line for people."""
    collective = int(settings["ALEXVGG_COLLECTIVE_SECONDS"])
    changed = [f"{name}={settings[name]}" for name, value in SETTINGS.items() if settings[name] != str(value)]
    line = f"a silent node is noticed within {notice_seconds(settings):.0f} s, a silent worker within {collective} s"
    return f"{line} ({', '.join(changed)})" if changed else line
