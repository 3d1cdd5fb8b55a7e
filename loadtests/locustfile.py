"""What Locust loads: the users of the mix, the shape of the run, and where the samples go.

    python -m loadtests                                                               everything, with a verdict
    locust -f loadtests/locustfile.py --host http://127.0.0.1:3000 --shape steps -t 60s    by hand

Environment: RADIOLUCENT_LOAD_MIX (another file than `mix.toml`), RADIOLUCENT_LOAD_KEY (sent as `Authorization:
Bearer`), RADIOLUCENT_LOAD_SAMPLES (where the samples are written at the end, as JSON; the master does it for all).
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests import collecting
from loadtests.mix import SHIPPED, read_mix
from loadtests.payloads import draw
from loadtests.shapes import SHAPES, users_at
from loadtests.users import make_users

_SPAWN_RATE = 100.0  # users started a second where the number changes

draw()
globals().update(make_users(read_mix(Path(os.environ.get("RADIOLUCENT_LOAD_MIX", SHIPPED)))))


class Chosen(LoadTestShape):
    """The shape that `--shape` names, over `--run-time`, of `--users`."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Locust's: users and how fast they come, or the end."""
        assert self.runner is not None  # noqa: S101 - set before the first tick
        options: Any = self.runner.environment.parsed_options
        users = users_at(options.shape, self.get_run_time(), options.run_time or math.inf, options.num_users or 1)
        return None if users is None else (users, _SPAWN_RATE)


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--shape", choices=SHAPES, default="constant", env_var="RADIOLUCENT_LOAD_SHAPE", help="users over time"
    )


@events.init.add_listener
def _collect(environment: Environment, **_: object) -> None:
    collecting.listen(environment, Path(os.environ.get("RADIOLUCENT_LOAD_SAMPLES", "reports/load/samples.json")))
