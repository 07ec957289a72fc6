"""`client.features`: behaviour that can be switched on before it is everybody's."""

from trellis.answers import Feature, answer
from trellis.transport import Call, Transport


class Features:
    """The switches there are, and what was said of them for the platform and for projects."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, project: str | None = None) -> tuple[Feature, ...]:
        """All of them, as they are for jobs that say nothing: of the platform, or of that project. Raises Invalid."""
        answered = self._transport.json(Call("GET", "/features", {"project": project}))
        return tuple(answer(Feature, item) for item in answered["items"])

    def set(self, name: str, enabled: bool | None, *, project: str | None = None) -> Feature:
        """Switch one for a project, or for the platform; None takes back what was said there.

        Raises: NotFound that names those there are, Invalid for the project, Forbidden.
        """
        body = {"name": name, "enabled": enabled, **({"project": project} if project else {})}
        return answer(Feature, self._transport.json(Call("PUT", "/features", body=body)))
