"""What is sent: requests of every kind, good and bad, each with the statuses that are right for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection

import httpx
from brittle import marked

from service.dicomweb.multipart import write_multipart
from tests.fuzz.mutate import mutate
from tests.fuzz.seeds import synthetic

Kind = Callable[[httpx.AsyncClient, random.Random, str], Awaitable[httpx.Response]]
LONGEST_S = 600  # an answer to the largest requests, on a slow machine that others use as well
UNHURRIED = {"RADIOLUCENT_INLINE_SECONDS": str(LONGEST_S), "RADIOLUCENT_ANSWER_S": str(LONGEST_S)}  # the service
_MANY = 64  # images; the service takes no more in one request
_TIMES = 10
_SHORT_S = 0.02  # a client that leaves before its answer


async def predict(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    files = [_image(chance) for _ in range(chance.choice((1, 1, 1, 8)))]
    return await client.post("/v1/predict", data={"model": model}, files=files)


async def explain(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    method = chance.choice(("gradcam", "gradcam", "occlusion", "kernelshap"))
    fields = {"model": model, "method": method, "overlay": chance.choice(("true", "false")), "budget": "64"}
    return await client.post("/v1/explain", data=fields, files=[_image(chance)])


async def report(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    name, (_, content) = _image(chance)
    assert name == "images"
    return await client.post("/v1/report", data={"model": model}, files=[("image", ("a.png", content))])


async def job(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    """A job that is looked at and deleted, done or not."""
    made = await client.post("/v1/explanations", data={"model": model, "method": "occlusion"}, files=[_image(chance)])
    if made.status_code != 202:
        return made
    await client.get(made.headers["location"])
    return await client.delete(made.headers["location"])


async def study(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    kind, body = write_multipart([chance.choice(synthetic()) for _ in range(2)])
    accept = chance.choice(("application/json", 'multipart/related; type="application/dicom"'))
    return await client.post("/v1/studies", content=b"".join(body), headers={"content-type": kind, "accept": accept})


async def damaged(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    """A mutated DICOM file among good images."""
    files = [_image(chance), ("images", ("b.dcm", mutate(synthetic(), chance)))]
    return await client.post("/v1/predict", data={"model": model}, files=files)


async def failing(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    """An image that `tests.brittle` fails on."""
    content = marked(chance.choice(("raises", "exhausts")))
    return await client.post("/v1/predict", data={"model": model}, files=[("images", ("a.png", content))])


async def wrong(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    fields = chance.choice(
        ({"model": "none"}, {"model": model, "target": "none"}, {"model": model, "budget": "-1"}, {})
    )
    return await client.post("/v1/explain", data=fields, files=[_image(chance)])


async def broken(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    """A body that ends early."""
    body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + chance.randbytes(20_000)
    kind = {"content-type": "multipart/form-data; boundary=x"}
    return await client.post("/v1/predict", content=body, headers=kind)


async def leaving(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    """A client that does not wait for its answer."""
    fields = {"model": model, "method": "kernelshap"}
    try:
        return await client.post("/v1/explain", data=fields, files=[_image(chance)], timeout=_SHORT_S)
    except httpx.TimeoutException:
        return httpx.Response(200)


async def looking(client: httpx.AsyncClient, chance: random.Random, model: str) -> httpx.Response:
    return await client.get(chance.choice(("/metrics", "/readyz", "/v1/models", "/v1/jobs", "/", "/openapi.json")))


# Share, and statuses that are right.
MIX: dict[Kind, tuple[float, tuple[int, ...]]] = {
    predict: (4.0, (200, 503)),
    explain: (4.0, (200, 503)),
    report: (0.5, (200, 503)),
    job: (1.0, (204, 503)),
    study: (1.0, (200, 422, 503)),
    damaged: (2.0, (200, 503)),
    failing: (0.5, (500, 503)),
    wrong: (1.0, (404, 422)),
    broken: (0.5, (400, 422, 503)),
    leaving: (0.5, (200, 503)),
    looking: (1.0, (200,)),
}


async def warm_up(client: httpx.AsyncClient, model: str, kinds: Collection[Kind]) -> None:
    """The largest requests, and every kind several times at once: what they need is not growth."""
    chance = random.Random(0)
    explained = [("explain", {"method": name, "budget": "64"}) for name in ("gradcam", "kernelshap")]
    for path, fields in (("predict", {}), *explained):
        files = [_image(chance) for _ in range(_MANY)]
        answer = await client.post(f"/v1/{path}", data={"model": model} | fields, files=files)
        answer.raise_for_status()
    for _ in range(_TIMES):
        await asyncio.gather(*(kind(client, chance, model) for kind in kinds))


def _image(chance: random.Random) -> tuple[str, tuple[str, bytes]]:
    content = marked(None, chance.randrange(1, 255)) if chance.random() < 0.7 else chance.choice(synthetic())
    return "images", ("image", content)
