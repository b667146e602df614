"""A service that is started goes on alone."""

import os
from pathlib import Path

from processes import wait_for

from cluster import processes


def test_a_service_holds_nothing_open_of_the_shell_that_started_it(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    say = "import os; print(sorted(os.listdir('/dev/fd')), flush=True); import time; time.sleep(60)"
    service = processes.spawn(tmp_path, "service", ["python3", "-c", say], os.environ)
    try:
        os.close(write)
        assert os.read(read, 1) == b"", "the pipe has no writer left"
        log = processes.log_of(tmp_path, "service")
        wait_for(lambda: log.read_text().endswith("]\n"), "the service's start")
        assert log.read_text() == "['0', '1', '2', '3']\n", "3 is how it looks"
        assert [name for name, _ in processes.marked(tmp_path)] == ["service"]
    finally:
        os.close(read)
        assert processes.stop(tmp_path) == 1
    assert not processes.lives(service)
