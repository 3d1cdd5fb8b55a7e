"""How many requests a second a service answers within its objectives, and what that costs.

    python -m loadtests.capacity [--url URL] [--method gradcam] [--images 1] [--price 0.40] [--json FILE]

Requests arrive open-loop (see `arrivals`), so that slow answers do not slow the load down. The rate is raised until
the objective of the operation (`capacity` in `objectives.toml`) is no longer met, then narrowed by bisection. A rate is
held so long that a backlog growing by a twentieth of the rate would miss the objective, less long where it is missed
earlier; it is met where that is shown with 95 % confidence. The rate found is confirmed by a run of its own, because
the best of several noisy ones flatters.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import asdict
from itertools import count
from pathlib import Path

import aiohttp
from rich.console import Console

from benchmarks.harness import machine, save
from loadtests.answers import Expected, Verdict, judge
from loadtests.arrivals import Send
from loadtests.bodies import image_body
from loadtests.mix import FileError
from loadtests.objectives import SHIPPED, Latency, read_objectives
from loadtests.offers import Offer, offers_of
from loadtests.search import Found, Level, hold, search
from loadtests.serving import NothingMeasured, add_key_option, authorization, target, use_key


def cost_per_thousand(price_per_hour: float, images_per_s: float) -> float:
    """What 1,000 explanations cost on a machine at this price an hour, kept busy at this rate."""
    return price_per_hour / 3600 / images_per_s * 1000


async def sender(session: aiohttp.ClientSession, url: str, options: argparse.Namespace) -> tuple[Send, str]:
    """What makes one request, and the name of the operation.

    Raises:
        NothingMeasured: the service does not offer the model or the method.
    """
    async with session.get(f"{url}/v1/models") as answer:
        if answer.status != 200:
            raise NothingMeasured(f"GET /v1/models: status {answer.status}")
        offers = offers_of(await answer.json())
    offer = _offer(offers, options.model)
    method = options.method if options.method != "default" else offer.default
    if method not in (*offer.methods, "none"):
        raise NothingMeasured(f"{offer.model} has no method {method}; it has {', '.join(offer.methods)}")
    explained = method != "none"
    path, operation = ("/v1/explain", f"explain {method}") if explained else ("/v1/predict", "predict")
    extra = (("method", method),) if explained else ()
    expected, numbers = Expected(options.images, explained=explained), count()

    async def send() -> Verdict:
        body = image_body(offer.model, offer.modality, options.format, next(numbers) % 8, options.images, extra)
        try:
            async with session.post(url + path, data=body.content, headers={"Content-Type": body.kind}) as answer:
                return judge(answer.status, answer.headers.get("Retry-After"), await answer.read(), expected)
        except (aiohttp.ClientError, OSError) as error:
            return Verdict("wrong", fault=type(error).__name__)

    return send, operation


def _offer(offers: list[Offer], model: str) -> Offer:
    found = [offer for offer in offers if model in ("", offer.model)]
    if not found:
        raise NothingMeasured(f"the service does not offer {model or 'a classifier'}")
    return found[0]


async def _probe(send: Send, seconds: float = 3.0) -> float:
    """Requests a second of one client that waits for each answer: where the search begins, at half of it.

    Raises:
        NothingMeasured: a request was not answered as it should be.
    """
    start, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or done < 5:
        verdict = await send()
        if verdict.outcome != "answered":
            raise NothingMeasured(f"a request alone: {verdict.outcome} {verdict.fault}")
        done += 1
    return done / passed


async def find(url: str, options: argparse.Namespace, console: Console) -> tuple[Found, Latency, str]:
    """Search on a service that is ready.

    Raises:
        FileError: no objective.
        NothingMeasured: no such model or method, or no right answer.
    """
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, headers=authorization(), timeout=timeout) as session:
        send, operation = await sender(session, url, options)
        goal = read_objectives(options.objectives).alone(operation)
        if options.p95_ms:
            goal = Latency(p95_ms=options.p95_ms)
        if goal is None:
            raise FileError(f"{options.objectives}: no objective under `capacity` for {operation}")
        seconds = options.seconds or max(20.0, 20 * max(goal.limits.values()) / 1000)
        seeds = count(options.seed)

        async def level(rate: float) -> Level:
            made = await hold(send, rate, goal.limits, seconds, next(seeds))
            shown = f"p50 {made.p50_ms:.0f}, p95 {made.p95_ms:.0f}, p99 {made.p99_ms:.0f} ms"
            console.print(f"{rate:8.2f}/s {made.decision:9} {made.requests} requests, {shown}, {made.seconds:.0f} s")
            return made

        start = options.start or await _probe(send) / 2
        return await search(level, start, options.resolution), goal, operation


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.capacity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="default: %(default)s")
    parser.add_argument("--model", default="", help="default: the first classifier")
    parser.add_argument("--method", default="default", help="an explanation method, or none (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1, help="in a request (default: %(default)s)")
    parser.add_argument("--format", choices=("png", "dicom"), default="png")
    parser.add_argument("--objectives", type=Path, default=SHIPPED)
    parser.add_argument("--p95-ms", type=float, default=0.0, help="instead of the objectives of the file")
    parser.add_argument("--price", type=float, default=0.0, help="of the machine an hour, in any currency")
    parser.add_argument("--start", type=float, default=0.0, help="first rate (default: half of what one client gets)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.0,
        help="for a rate, three times as long where in doubt (default: 20 times the limit)",
    )
    parser.add_argument("--resolution", type=float, default=0.05, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    add_key_option(parser)
    parser.add_argument("--note", default="", help="what the figures depend on; part of the result")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point: 0 where a rate was found and confirmed, 1 where none was, 2 where nothing could be measured."""
    options, console = parsed(arguments), Console()
    try:
        use_key(options)
        with target(options.url) as (url, _):
            found, goal, operation = asyncio.run(find(url, options, console))
    except (FileError, NothingMeasured) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    where = {**machine("cpu", 0), "note": options.note}
    summary: dict[str, object] = {"rate": found.rate, "images_per_s": None, "cost_per_1000": None}
    if found.rate is None:
        console.print("no rate was shown to meet the objective")
    else:
        last, images = found.levels[-1], found.rate * options.images
        summary["images_per_s"] = images
        console.print(
            f"{images:.2f} {'predictions' if operation == 'predict' else 'explanations'}/s; "
            f"latency p50 {last.p50_ms:.0f}, p95 {last.p95_ms:.0f}, p99 {last.p99_ms:.0f} ms"
        )
        if options.price:
            summary["cost_per_1000"] = cost = cost_per_thousand(options.price, images)
            console.print(f"{cost:.4f} for 1,000 at {options.price:g} an hour")
    options.objectives = options.objectives.name  # results hold no place of this machine
    levels = [asdict(level) for level in found.levels]
    save(options, where, operation=operation, objective=goal.model_dump(), found=summary, levels=levels)
    return 0 if found.rate is not None else 1


if __name__ == "__main__":
    sys.exit(main())
