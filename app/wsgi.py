"""What gunicorn loads: `gunicorn app.wsgi:app`."""

import os

from app.core.settings import Settings
from app.factory import create_app
from trellis.settings import load

app = create_app(load(Settings, os.environ))
