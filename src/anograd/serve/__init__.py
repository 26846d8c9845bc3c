"""A small HTTP service and a page to try a saved detector; ``anograd serve MODEL`` starts it."""

try:
    import fastapi as fastapi
    import python_multipart as python_multipart
    import uvicorn as uvicorn
except ImportError as error:
    raise ImportError(
        "serving needs fastapi, uvicorn and python-multipart: pip install 'anograd[serve]'"
    ) from error

from anograd.serve.limits import Limits as Limits
from anograd.serve.service import app as app
from anograd.serve.service import factory as factory
