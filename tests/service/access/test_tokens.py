"""Tokens against a real provider on loopback."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from pydantic import ValidationError

from service.access.tokens import Oidc, Tokens
from service.errors import IdentityUnavailable, Unauthenticated


class Provider(ThreadingHTTPServer):
    """Publishes `keys`; counts who asks; may be told to answer something else."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server_address[1]}"
        self.keys = [RSAKey.generate_key(2048, {"kid": "first", "use": "sig"}, auto_kid=False)]
        self.instead: tuple[int, dict[str, str], bytes] | None = None
        self.asked: list[str] = []

    def token(self, key=None, alg="RS256", header=None, **claims) -> str:
        key = key or self.keys[0]
        now = int(time.time())
        told = {"iss": self.issuer, "aud": "us", "sub": "dr-who", "exp": now + 600, "scope": "radiolucent:explain x"}
        told |= claims
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode({"alg": alg, "kid": key.kid, **(header or {})}, told, key, algorithms=[alg])


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, headers, body = 200, {}, b""
        if self.path == "/.well-known/openid-configuration":
            body = json.dumps({"jwks_uri": f"{self.server.issuer}/keys"}).encode()
        elif self.server.instead:
            status, headers, body = self.server.instead
        else:
            body = json.dumps(KeySet(self.server.keys).as_dict()).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with Provider() as provider:
        thread = threading.Thread(target=provider.serve_forever, args=(0.05,))
        thread.start()
        yield provider
        provider.shutdown()
        thread.join()


@pytest.fixture
def provider(running):
    first = running.keys[0]
    running.asked.clear()
    yield running
    running.keys, running.instead = [first], None


@pytest.fixture
def tokens(provider, clock):
    return Tokens(Oidc(issuer=provider.issuer, audience="us"), clock)


def test_a_token_says_whom_it_speaks_for_and_its_keys_are_fetched_once(provider, tokens):
    token = provider.token()
    assert tokens.remembered(token) is None
    bearer = tokens.check(token)
    assert (bearer.subject, bearer.scopes) == ("dr-who", ("explain",))
    assert tokens.remembered(token) is bearer
    assert tokens.check(provider.token(aud=["others", "us"], scope=["radiolucent:admin"])).scopes == ("admin",)
    assert tokens.check(provider.token(scope=None)).scopes == ()
    assert provider.asked == ["/.well-known/openid-configuration", "/keys"]


def test_a_remembered_token_is_checked_again_and_ends_when_it_says(provider, tokens, clock):
    token = provider.token()
    tokens.check(token)
    clock.now += 301
    assert tokens.remembered(token) is None
    short = provider.token(exp=int(time.time()) - 27)  # within the leeway
    until = tokens.check(short).until
    assert until - time.time() < 4
    assert tokens.remembered(short) is not None or time.time() >= until
    time.sleep(max(0, until - time.time()) + 0.1)
    assert tokens.remembered(short) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://id.example"},
        {"iss": None},
        {"aud": "others"},
        {"aud": None},
        {"exp": 1},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": 4_000_000_000},
        {"sub": None},
        {"sub": 7},
    ],
)
def test_what_a_token_must_say(provider, tokens, claims):
    with pytest.raises(Unauthenticated) as refused:
        tokens.check(provider.token(**claims))
    assert "dr-who" not in str(refused.value)


def test_only_the_providers_own_signatures_hold(provider, tokens):
    forged = RSAKey.generate_key(2048, {"kid": "first"}, auto_kid=False)
    with pytest.raises(Unauthenticated):
        tokens.check(provider.token(forged))
    head, _, signature = provider.token().split(".")
    with pytest.raises(Unauthenticated):
        tokens.check(".".join([head, provider.token(scope="radiolucent:admin").split(".")[1], signature]))


def part(**header: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()


def test_the_public_key_is_no_shared_secret_and_none_is_no_algorithm(provider, tokens):
    signed = f"{part(alg='HS256', kid='first')}.{provider.token().split('.')[1]}"
    mac = hmac.digest(provider.keys[0].as_pem(private=False), signed.encode(), "sha256")
    with pytest.raises(Unauthenticated, match="algorithm"):
        tokens.check(f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")
    unsigned = "eyJhbGciOiJub25lIn0." + provider.token().split(".")[1] + "."
    with pytest.raises(Unauthenticated):
        tokens.check(unsigned)


NESTED = base64.urlsafe_b64encode(b"[" * 2001).decode()  # deeper than Python's own stack


@pytest.mark.parametrize(
    "text", ["x", "a.b.c", "....", "e30.e30.e30", "rl_x", "W10.e30.", "a" * 20_000, f"{NESTED}.e30.e30"]
)
def test_what_is_no_token(tokens, text):
    with pytest.raises(Unauthenticated):
        tokens.check(text)


def test_a_new_key_is_fetched_when_a_token_names_it_but_not_for_everybody_who_makes_one_up(provider, tokens, clock):
    tokens.check(provider.token())
    provider.keys.append(ECKey.generate_key("P-256", {"kid": "second"}, auto_kid=False))
    new = provider.token(provider.keys[1], "ES256")
    with pytest.raises(Unauthenticated):
        tokens.check(new)  # asked just now
    clock.now += 31
    assert tokens.check(new).subject == "dr-who"
    asked = len(provider.asked)
    for number in range(10):
        with pytest.raises(Unauthenticated):
            tokens.check(provider.token(header={"kid": f"made up {number}"}))
    assert len(provider.asked) == asked


@pytest.mark.parametrize(
    "instead",
    [
        (500, {}, b""),
        (302, {"Location": "/elsewhere"}, b""),
        (200, {}, b"no JSON"),
        (200, {}, b'{"keys": []}'),
        (200, {}, b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'),
        (200, {}, b" " * (2**20 + 1)),
    ],
)
def test_a_provider_that_fails_is_unavailable_and_the_keys_from_before_hold_on(provider, tokens, clock, instead):
    provider.instead = instead
    with pytest.raises(IdentityUnavailable):
        tokens.check(provider.token())
    provider.instead = None
    clock.now += 31
    tokens.check(provider.token())
    provider.instead = instead
    clock.now += 7200
    tokens.check(provider.token(sub="another"))
    assert "/elsewhere" not in provider.asked


def test_a_provider_that_is_not_there_is_unavailable(provider, clock):
    with pytest.raises(IdentityUnavailable):
        nobody = Oidc(issuer=provider.issuer, audience="us", jwks_url="http://127.0.0.1:9/")
        Tokens(nobody, clock).check(provider.token())


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://id.example"},
        {"jwks_url": "ftp://id.example/keys"},
        {"audience": ""},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"scopes": {"x": "root"}},
    ],
)
def test_settings_that_would_let_others_in_are_refused(wrong):
    with pytest.raises(ValidationError):
        Oidc(**({"issuer": "https://id.example", "audience": "us"} | wrong))
