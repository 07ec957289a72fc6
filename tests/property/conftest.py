"""Examples are judged by what they show, not by how long a busy machine took over them."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
