"""How machines join."""

from typing import Any

from flask import current_app
from flask.views import MethodView

from app.http.blueprint import Blueprint
from app.http.transaction import answers_secret, current_uow
from app.http.wire_body import body_as, described
from app.resources import nodes
from trellis.wire import HostRegistration, HostWelcome, NodeDescription, Welcome, pack

blp = Blueprint("agent_nodes", __name__, url_prefix="/agent", description="For nodes.")


@blp.route("/register")
class Registrations(MethodView):
    """Machines that join."""

    @answers_secret
    @blp.doc(**described("NodeDescription", "Welcome", 201))
    def post(self) -> Any:
        """Let a machine in: by a join token, or by the node's own token when it comes back."""
        joined = nodes.join(current_uow(), current_app.extensions["keyring"], body_as(NodeDescription))
        return pack(_welcome(joined)), 201


@blp.route("/host/register")
class HostRegistrations(MethodView):
    """Many machines that one host speaks for."""

    @answers_secret
    @blp.doc(**described("HostRegistration", "HostWelcome", 201))
    def post(self) -> Any:
        """Let machines in together, by a join token."""
        described = body_as(HostRegistration).nodes
        joined = nodes.join_all(current_uow(), current_app.extensions["keyring"], described)
        return pack(HostWelcome(tuple(map(_welcome, joined)))), 201


def _welcome(joined: nodes.Joined) -> Welcome:
    settings = current_app.extensions["settings"]
    return Welcome(
        node_id=str(joined.node.id),
        token=joined.token,
        queue=f"node.{joined.node.id}",
        broker_url=settings.node_broker_url or settings.broker_url,
        heartbeat_s=settings.heartbeat_s,
        lease_s=settings.lease_s,
    )
