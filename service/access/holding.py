"""Whose a job is: what one caller asked for is another's as little as if it did not exist."""

from __future__ import annotations

from starlette.requests import Request

from service.access.audit import visit_of


def holder_of(request: Request) -> str:
    """Who holds what a request makes; empty where nobody is asked who they are."""
    visit = visit_of(request)
    return "" if visit is None else visit.holder


def sight_of(request: Request) -> str | None:
    """The only holder whose jobs a request may see; None: all, for admins and where nobody is asked who they are."""
    visit = visit_of(request)
    return None if visit is None or not visit.holder or "admin" in visit.scopes else visit.holder
