"""How machines join."""

from typing import Any

from flask import current_app
from flask.views import MethodView

from app.http.blueprint import Blueprint
from app.http.transaction import answers_secret, current_uow
from app.http.wire_body import body_as, described
from app.resources import nodes
from trellis.wire import NodeDescription, Welcome, pack

blp = Blueprint("agent_nodes", __name__, url_prefix="/agent", description="For nodes.")


@blp.route("/register")
class Registrations(MethodView):
    """Machines that join."""

    @answers_secret
    @blp.doc(**described("NodeDescription", "Welcome", 201))
    def post(self) -> Any:
        """Let a machine in: by a join token, or by the node's own token when it comes back."""
        settings, keyring = current_app.extensions["settings"], current_app.extensions["keyring"]
        joined = nodes.join(current_uow(), keyring, body_as(NodeDescription))
        welcome = Welcome(
            node_id=str(joined.node.id),
            token=joined.token,
            queue=f"node.{joined.node.id}",
            broker_url=settings.node_broker_url or settings.broker_url,
            heartbeat_s=settings.heartbeat_s,
            lease_s=settings.lease_s,
        )
        return pack(welcome), 201
