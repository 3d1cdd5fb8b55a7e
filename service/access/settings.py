"""The settings of access, each an environment variable with the prefix RADIOLUCENT_."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.access.rates import RATE_PATTERN
from service.access.tokens import Oidc

PREFIX = "RADIOLUCENT_"


class AccessSettings(BaseSettings):
    """Part of `service.settings.Settings`.

    Attributes:
        keys: file of API keys, made by `python -m service.access`.
        oidc: an OpenID provider whose access tokens are taken, as JSON; see `Oidc`.
        insecure: answer anybody at any address without keys and tokens; something else must ask callers who they are.
        rate: most requests of one key or token subject, such as `600/minute`; empty: any.
        max_concurrent: most requests of one key or token subject under way at once; 0: any.
        audit_log: file of the audit log; none where left out.
        cors_origins: other sites whose pages may ask, as a JSON list of origins; none where left out.
    """

    # What is wrong is said without what was given: some of it is secret.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    keys: Path | None = None
    oidc: Oidc | None = None
    insecure: bool = False
    rate: str = Field(default="", pattern=f"^$|{RATE_PATTERN}")
    max_concurrent: int = Field(default=0, ge=0)
    audit_log: Path | None = None
    cors_origins: tuple[str, ...] = ()

    @property
    def is_guarded(self) -> bool:
        """Whether callers are asked who they are."""
        return self.keys is not None or self.oidc is not None
