"""Looking on and steering over HTTP: an application that any FastAPI application can mount."""

from tasktrail.web.app import create_app

__all__ = ["create_app"]
