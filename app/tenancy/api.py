"""Endpoints of sign-in, organisations, projects, members, people and credentials."""

from typing import Any
from uuid import UUID

from flask import Response, current_app, request
from flask.views import MethodView

from app.core.paging import Page, Sort
from app.http import problems
from app.http.blueprint import Blueprint
from app.http.paging import PageQuery, page_of, page_request
from app.http.transaction import answers_secret, current_uow, etag, if_match, keyring, public, versioned
from app.tenancy import api_keys, features, members, quotas, schemas, service, service_accounts, sessions, users, whoami
from app.tenancy.api_keys import ApiKeySpec, NewApiKey
from app.tenancy.members import Member as MemberRow
from app.tenancy.models import ApiKey, Membership, Organisation, Project, ServiceAccount, User
from app.tenancy.quotas import QuotaSpec, Subject
from app.tenancy.users import UserChange, UserSpec
from trellis.errors import Unauthenticated

auth = Blueprint("auth", __name__, url_prefix="/auth", description="Signing in and out.")
organisations = Blueprint("organisations", __name__, url_prefix="/organisations", description="Roofs over projects.")
projects = Blueprint("projects", __name__, url_prefix="/projects", description="Projects, their people and programs.")
people = Blueprint("users", __name__, url_prefix="/users", description="People, to platform administrators.")
keys = Blueprint("api-keys", __name__, url_prefix="/api-keys", description="Keys that stand for oneself.")
accounts = Blueprint("service-accounts", __name__, url_prefix="/service-accounts", description="Programs' accounts.")
switches = Blueprint("features", __name__, url_prefix="/features", description="Behaviour that can be switched.")
BLUEPRINTS = (auth, organisations, projects, people, keys, accounts, switches)

Versioned = tuple[Any, dict[str, str]]
ORGANISATION_SORTS = {"name": Sort(Organisation.name, False), "created_at": Sort(Organisation.created_at, False)}
PROJECT_SORTS = {"name": Sort(Project.name, False), "created_at": Sort(Project.created_at, False)}
MEMBER_SORTS = {"created_at": Sort(Membership.created_at, False)}
USER_SORTS = {"username": Sort(User.username, False), "created_at": Sort(User.created_at, False)}
KEY_SORTS = {"created_at": Sort(ApiKey.created_at, False)}
ACCOUNT_SORTS = {"name": Sort(ServiceAccount.name, False)}


def _sign_ins() -> sessions.SignIns:
    made: sessions.SignIns = current_app.extensions["sign_ins"]
    return made


def _answer(outcome: sessions.Session | Unauthenticated) -> sessions.Session | Response:
    # Answered, not raised: what a refusal leaves behind must be committed.
    return problems.respond(outcome) if isinstance(outcome, Unauthenticated) else outcome


@auth.route("/token")
class Token(MethodView):
    """Signing in."""

    @public
    @auth.arguments(schemas.SignInSchema)
    @auth.response(200, schemas.SessionSchema)
    def post(self, body: dict[str, str]) -> sessions.Session | Response:
        """Sign in with a username and a password."""
        address = request.remote_addr or ""
        return _answer(_sign_ins().open_session(current_uow(), body["username"], body["password"], address))


@auth.route("/refresh")
class Refresh(MethodView):
    """Staying signed in."""

    @public
    @auth.arguments(schemas.RefreshSchema)
    @auth.response(200, schemas.SessionSchema)
    def post(self, body: dict[str, str]) -> sessions.Session | Response:
        """Trade a refresh token, which is for one use, for the next pair."""
        return _answer(_sign_ins().continue_session(current_uow(), body["refresh_token"]))


@auth.route("/revoke")
class Revoke(MethodView):
    """Signing out."""

    @public
    @auth.arguments(schemas.RefreshSchema)
    @auth.response(204)
    def post(self, body: dict[str, str]) -> None:
        """Sign out: end the chain of this refresh token."""
        _sign_ins().close_session(current_uow(), body["refresh_token"])


@auth.route("/password")
class Password(MethodView):
    """One's own password."""

    @auth.arguments(schemas.PasswordSchema)
    @auth.response(204)
    def put(self, body: dict[str, str]) -> None:
        """Change one's own password; this signs out everywhere."""
        sessions.change_own_password(current_uow(), body["current"], body["new"])


@auth.route("/whoami")
class WhoamiView(MethodView):
    """Oneself."""

    @auth.response(200, schemas.WhoamiSchema)
    def get(self) -> whoami.Whoami:
        """Say who the credential stands for, and their projects."""
        return whoami.get_whoami(current_uow())


@organisations.route("")
class Organisations(MethodView):
    """All organisations."""

    @organisations.arguments(PageQuery, location="query")
    @organisations.response(200, page_of(schemas.OrganisationSchema))
    def get(self, query: dict[str, Any]) -> Page[Organisation]:
        """List the organisations in which one has a project."""
        return service.list_organisations(current_uow(), page_request(query, ORGANISATION_SORTS, "name"))

    @organisations.arguments(schemas.NewOrganisationSchema)
    @organisations.response(201, schemas.OrganisationSchema)
    def post(self, body: dict[str, Any]) -> Versioned:
        """Make an organisation (platform administrators)."""
        return versioned(service.create_organisation(current_uow(), body["name"]))


@organisations.route("/<uuid:organisation_id>")
class OneOrganisation(MethodView):
    """One organisation."""

    @organisations.response(200, schemas.OrganisationSchema)
    def get(self, organisation_id: UUID) -> Versioned:
        """Read an organisation."""
        return versioned(current_uow().get(Organisation, organisation_id))


@projects.route("")
class Projects(MethodView):
    """All projects."""

    @projects.arguments(PageQuery, location="query")
    @projects.response(200, page_of(schemas.ProjectSchema))
    def get(self, query: dict[str, Any]) -> Page[Project]:
        """List one's projects; all of them to platform administrators."""
        return service.list_projects(current_uow(), page_request(query, PROJECT_SORTS, "name"))

    @projects.arguments(schemas.NewProjectSchema)
    @projects.response(201, schemas.ProjectSchema)
    def post(self, body: dict[str, Any]) -> Versioned:
        """Make a project (platform administrators); whoever makes it administers it."""
        return versioned(service.create_project(current_uow(), **body))


@projects.route("/<uuid:project_id>")
class OneProject(MethodView):
    """One project."""

    @projects.response(200, schemas.ProjectSchema)
    def get(self, project_id: UUID) -> Versioned:
        """Read a project."""
        return versioned(current_uow().get(Project, project_id))

    @projects.arguments(schemas.ProjectChangeSchema)
    @projects.response(200, schemas.ProjectSchema)
    def patch(self, body: dict[str, Any], project_id: UUID) -> Versioned:
        """Rename a project (its administrators)."""
        return versioned(service.change_project(current_uow(), project_id, body, if_match()))


@projects.route("/<uuid:project_id>/members")
class Members(MethodView):
    """The people of a project."""

    @projects.arguments(PageQuery, location="query")
    @projects.response(200, page_of(schemas.MemberSchema))
    def get(self, query: dict[str, Any], project_id: UUID) -> Page[MemberRow]:
        """List the members of a project and their roles."""
        return members.list_members(current_uow(), project_id, page_request(query, MEMBER_SORTS, "created_at"))


@projects.route("/<uuid:project_id>/members/<uuid:user_id>")
class OneMember(MethodView):
    """One person in one project."""

    @projects.arguments(schemas.RoleSchema)
    @projects.response(200, schemas.MemberSchema)
    def put(self, body: dict[str, Any], project_id: UUID, user_id: UUID) -> MemberRow:
        """Give a user a role in a project (its administrators)."""
        return members.set_member(current_uow(), project_id, user_id, body["role"])

    @projects.response(204)
    def delete(self, project_id: UUID, user_id: UUID) -> None:
        """Take a user out of a project (its administrators)."""
        members.remove_member(current_uow(), project_id, user_id)


@organisations.route("/<uuid:organisation_id>/quota")
class OrganisationQuota(MethodView):
    """What all projects of an organisation may have together."""

    @organisations.response(200, schemas.QuotaSchema)
    def get(self, organisation_id: UUID) -> Versioned:
        """Show an organisation's quota and how much of it is used."""
        return _quota(quotas.get_quota(current_uow(), Subject(organisation_id=organisation_id)))

    @organisations.arguments(schemas.NewQuotaSchema)
    @organisations.response(200, schemas.QuotaSchema)
    def put(self, spec: QuotaSpec, organisation_id: UUID) -> Versioned:
        """Set an organisation's quota, whole (platform administrators)."""
        return _quota(quotas.set_quota(current_uow(), Subject(organisation_id=organisation_id), spec, if_match()))


@projects.route("/<uuid:project_id>/quota")
class ProjectQuota(MethodView):
    """What a project may have."""

    @projects.response(200, schemas.QuotaSchema)
    def get(self, project_id: UUID) -> Versioned:
        """Show a project's quota and how much of it is used."""
        return _quota(quotas.get_quota(current_uow(), Subject(project_id=project_id)))

    @projects.arguments(schemas.NewQuotaSchema)
    @projects.response(200, schemas.QuotaSchema)
    def put(self, spec: QuotaSpec, project_id: UUID) -> Versioned:
        """Set a project's quota, whole (platform administrators)."""
        return _quota(quotas.set_quota(current_uow(), Subject(project_id=project_id), spec, if_match()))


@projects.route("/<uuid:project_id>/members/<uuid:user_id>/quota")
class MemberQuota(MethodView):
    """What one user, or service account, of a project may have there."""

    @projects.response(200, schemas.QuotaSchema)
    def get(self, project_id: UUID, user_id: UUID) -> Versioned:
        """Show a member's quota in a project and how much of it is used."""
        return _quota(quotas.get_quota(current_uow(), Subject(project_id=project_id, actor_id=user_id)))

    @projects.arguments(schemas.NewQuotaSchema)
    @projects.response(200, schemas.QuotaSchema)
    def put(self, spec: QuotaSpec, project_id: UUID, user_id: UUID) -> Versioned:
        """Set a member's quota in a project, whole (the project's administrators)."""
        whose = Subject(project_id=project_id, actor_id=user_id)
        return _quota(quotas.set_quota(current_uow(), whose, spec, if_match()))


def _quota(report: quotas.QuotaReport) -> Versioned:
    return report, etag(report.quota)


@projects.route("/<uuid:project_id>/service-accounts")
class ServiceAccounts(MethodView):
    """The programs of a project."""

    @projects.arguments(PageQuery, location="query")
    @projects.response(200, page_of(schemas.ServiceAccountSchema))
    def get(self, query: dict[str, Any], project_id: UUID) -> Page[ServiceAccount]:
        """List the service accounts of a project."""
        wanted = page_request(query, ACCOUNT_SORTS, "name")
        return service_accounts.list_service_accounts(current_uow(), project_id, wanted)

    @projects.arguments(schemas.NewServiceAccountSchema)
    @projects.response(201, schemas.ServiceAccountSchema)
    def post(self, body: dict[str, Any], project_id: UUID) -> ServiceAccount:
        """Make a service account (the project's administrators)."""
        return service_accounts.create_service_account(current_uow(), project_id, **body)


@people.route("")
class Users(MethodView):
    """All people."""

    @people.arguments(PageQuery, location="query")
    @people.response(200, page_of(schemas.UserSchema))
    def get(self, query: dict[str, Any]) -> Page[User]:
        """List all people."""
        return users.list_users(current_uow(), page_request(query, USER_SORTS, "username"))

    @people.arguments(schemas.NewUserSchema)
    @people.response(201, schemas.UserSchema)
    def post(self, spec: UserSpec) -> Versioned:
        """Add a person."""
        return versioned(users.create_user(current_uow(), spec))


@people.route("/<uuid:user_id>")
class OneUser(MethodView):
    """One person."""

    @people.response(200, schemas.UserSchema)
    def get(self, user_id: UUID) -> Versioned:
        """Read a person; everybody may read themselves."""
        return versioned(current_uow().get(User, user_id))

    @people.arguments(schemas.UserChangeSchema)
    @people.response(200, schemas.UserSchema)
    def patch(self, change: UserChange, user_id: UUID) -> Versioned:
        """Change a person: password, administrator or not, disabled or not."""
        return versioned(users.change_user(current_uow(), user_id, change, if_match()))


@keys.route("")
class OwnKeys(MethodView):
    """One's own keys."""

    @keys.arguments(PageQuery, location="query")
    @keys.response(200, page_of(schemas.ApiKeySchema))
    def get(self, query: dict[str, Any]) -> Page[ApiKey]:
        """List one's own keys."""
        return api_keys.list_own_keys(current_uow(), page_request(query, KEY_SORTS, "created_at"))

    @answers_secret
    @keys.arguments(schemas.NewApiKeySchema)
    @keys.response(201, schemas.CreatedApiKeySchema)
    def post(self, spec: ApiKeySpec) -> NewApiKey:
        """Make a key that stands for oneself; the answer is the only place that shows it."""
        return api_keys.create_own_key(current_uow(), keyring(), spec)


@keys.route("/<uuid:key_id>")
class OneKey(MethodView):
    """One key."""

    @keys.response(204)
    def delete(self, key_id: UUID) -> None:
        """Revoke a key, from the next request on."""
        api_keys.revoke_key(current_uow(), key_id)


@accounts.route("/<uuid:account_id>")
class OneAccount(MethodView):
    """One service account."""

    @accounts.response(204)
    def delete(self, account_id: UUID) -> None:
        """Remove a service account and its keys."""
        service_accounts.remove_service_account(current_uow(), account_id)


@accounts.route("/<uuid:account_id>/keys")
class AccountKeys(MethodView):
    """A service account's keys."""

    @accounts.arguments(PageQuery, location="query")
    @accounts.response(200, page_of(schemas.ApiKeySchema))
    def get(self, query: dict[str, Any], account_id: UUID) -> Page[ApiKey]:
        """List the keys of a service account."""
        return api_keys.list_account_keys(current_uow(), account_id, page_request(query, KEY_SORTS, "created_at"))

    @answers_secret
    @accounts.arguments(schemas.NewApiKeySchema)
    @accounts.response(201, schemas.CreatedApiKeySchema)
    def post(self, spec: ApiKeySpec, account_id: UUID) -> NewApiKey:
        """Make a key that stands for a service account; the answer is the only place that shows it."""
        return api_keys.create_account_key(current_uow(), keyring(), account_id, spec)


@switches.route("")
class Features(MethodView):
    """All switches."""

    @switches.arguments(schemas.FeatureQuerySchema, location="query")
    @switches.response(200, schemas.FeatureListSchema)
    def get(self, query: dict[str, str]) -> dict[str, Any]:
        """List the features there are, and whether jobs have them that say nothing: anywhere, or in a project."""
        return {"items": features.list_features(current_uow(), query["project"]), "next_cursor": None}

    @switches.arguments(schemas.FeatureSwitchSchema)
    @switches.response(200, schemas.FeatureSchema)
    def put(self, body: dict[str, Any]) -> features.FeatureReport:
        """Switch a feature for a project (its administrators) or the platform (its administrators)."""
        return features.set_feature(current_uow(), body["name"], body["project"], enabled=body["enabled"])
