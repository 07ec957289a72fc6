"""Shapes of requests and answers about people, projects and credentials."""

from datetime import UTC
from typing import Any

from marshmallow import Schema, fields, post_load

from app.core.amounts import Limits
from app.http.amounts import AmountsSchema, LimitsSchema
from app.http.schema import NAME, Amount, Integer, Strict, Text
from app.tenancy.api_keys import ApiKeySpec
from app.tenancy.quotas import Burst, Level, QuotaSpec
from app.tenancy.users import LONGEST_PASSWORD, SHORTEST_PASSWORD, UserChange, UserSpec
from trellis.vocabulary import ActorKind, Role


class Name(fields.String):
    """A name that fits in a path and on a command line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(validate=NAME, **options)


class NewPassword(Text):
    """A password to be set; its length is what makes it hard to guess."""

    def __init__(self, **options: Any) -> None:
        super().__init__(shortest=SHORTEST_PASSWORD, longest=LONGEST_PASSWORD, **options)


class SignInSchema(Strict):
    """A username and its password."""

    username = Text(required=True, longest=63)
    password = Text(required=True, longest=LONGEST_PASSWORD)


class RefreshSchema(Strict):
    """The refresh token that was handed out last."""

    refresh_token = Text(required=True, longest=200)


class PasswordSchema(Strict):
    """One's own password: the present one and the next."""

    current = Text(required=True, longest=LONGEST_PASSWORD)
    new = NewPassword(required=True)


class SessionSchema(Schema):
    """What a sign-in hands out."""

    access_token = fields.String()
    token_type = fields.String()
    expires_in = fields.Integer(metadata={"description": "seconds"})
    refresh_token = fields.String(metadata={"description": "for one use"})


class OwnProjectSchema(Schema):
    """A project and one's role in it."""

    id = fields.UUID()
    name = fields.String()
    organisation = fields.String()
    role = fields.Enum(Role, by_value=True)


class WhoamiSchema(Schema):
    """Who the credential stands for."""

    kind = fields.Enum(ActorKind, by_value=True)
    id = fields.UUID()
    name = fields.String()
    platform_admin = fields.Boolean()
    projects = fields.List(fields.Nested(OwnProjectSchema))


class OrganisationSchema(Schema):
    """An organisation."""

    id = fields.UUID()
    name = fields.String()
    created_at = fields.AwareDateTime(default_timezone=UTC)
    version = fields.Integer()


class NewOrganisationSchema(Strict):
    """An organisation to be made."""

    name = Name(required=True)


HANG_AFTER = {"description": "of jobs that say nothing of it: hung, if they do nothing for so long; null: never"}


class ProjectSchema(Schema):
    """A project."""

    id = fields.UUID()
    name = fields.String()
    organisation_id = fields.UUID()
    hang_after_s = fields.Integer(allow_none=True, metadata=HANG_AFTER)
    created_at = fields.AwareDateTime(default_timezone=UTC)
    version = fields.Integer()


class NewProjectSchema(Strict):
    """A project to be made."""

    name = Name(required=True)
    organisation_id = fields.UUID(required=True)


class ProjectChangeSchema(Strict):
    """What of a project shall be another; what is left out stays."""

    name = Name()
    hang_after_s = Amount("seconds", most=31_536_000, data_key="hang_after", allow_none=True, metadata=HANG_AFTER)


class MemberSchema(Schema):
    """A user's role in a project."""

    user_id = fields.UUID()
    username = fields.String()
    role = fields.Enum(Role, by_value=True)


class RoleSchema(Strict):
    """The role to give."""

    role = fields.Enum(Role, by_value=True, required=True)


class UserSchema(Schema):
    """A person."""

    id = fields.UUID()
    username = fields.String()
    platform_admin = fields.Boolean()
    disabled_at = fields.AwareDateTime(default_timezone=UTC)
    created_at = fields.AwareDateTime(default_timezone=UTC)
    version = fields.Integer()


class NewUserSchema(Strict):
    """A person to be added."""

    username = Name(required=True)
    password = NewPassword(required=True)
    platform_admin = fields.Boolean(truthy={True}, falsy={False})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> UserSpec:
        """Hand the rules a value, not a dictionary."""
        return UserSpec(**data)


class UserChangeSchema(Strict):
    """What shall change of a person."""

    password = NewPassword()
    platform_admin = fields.Boolean(truthy={True}, falsy={False})
    disabled = fields.Boolean(truthy={True}, falsy={False})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> UserChange:
        """Hand the rules a value."""
        return UserChange(**data)


class ApiKeySchema(Schema):
    """A key, without its secret."""

    id = fields.UUID()
    name = fields.String()
    prefix = fields.String(metadata={"description": "how the secret begins"})
    created_at = fields.AwareDateTime(default_timezone=UTC)
    expires_at = fields.AwareDateTime(default_timezone=UTC)


class CreatedApiKeySchema(ApiKeySchema):
    """A key with its secret, which is shown this once."""

    key = fields.String()


class NewApiKeySchema(Strict):
    """A key to be made."""

    name = Name(required=True)
    expires_at = fields.AwareDateTime(default_timezone=UTC, allow_none=True)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> ApiKeySpec:
        """Hand the rules a value."""
        return ApiKeySpec(**data)


class ServiceAccountSchema(Schema):
    """A program's account."""

    id = fields.UUID()
    name = fields.String()
    project_id = fields.UUID()
    role = fields.Enum(Role, by_value=True)
    created_at = fields.AwareDateTime(default_timezone=UTC)


class NewServiceAccountSchema(Strict):
    """A program's account to be made."""

    name = Name(required=True)
    role = fields.Enum(Role, by_value=True, required=True)


AMOUNTS = frozenset(Limits.__slots__)


class FeatureSchema(Schema):
    """A switch for behaviour that is not for everybody yet."""

    name = fields.String()
    description = fields.String()
    owner = fields.String(metadata={"description": "the part of the platform that reads it"})
    default = fields.Boolean()
    platform = fields.Boolean(
        allow_none=True, metadata={"description": "what was said for the platform; null: nothing"}
    )
    project = fields.Boolean(allow_none=True, metadata={"description": "what was said for the project; null: nothing"})
    enabled = fields.Boolean(metadata={"description": "whether jobs have it that say nothing"})


class FeatureListSchema(Schema):
    """All there are."""

    items = fields.List(fields.Nested(FeatureSchema))
    next_cursor = fields.String(allow_none=True)


class FeatureQuerySchema(Strict):
    """Of which project."""

    project = Text(longest=63, load_default="")


class FeatureSwitchSchema(Strict):
    """What is to be said of a feature: for a project, or for the platform."""

    name = Text(required=True, longest=63, metadata={"example": "fine_metrics"})
    enabled = fields.Boolean(
        required=True,
        allow_none=True,
        truthy={True},
        falsy={False},
        metadata={"description": "null: nothing is said any more"},
    )
    project = Text(longest=63, load_default="")


class LevelSchema(LimitsSchema):
    """What is held at once, and jobs that have not ended; what is left out or null is without a limit."""

    jobs = Integer(least=0, most=10**9, allow_none=True)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Any:
        """Hand the rules a value, not a dictionary."""
        return Level(Limits(**{name: data[name] for name in AMOUNTS if name in data}), data.get("jobs"))


class BurstSchema(LimitsSchema):
    """So much on top of the hard limits, for a while."""

    for_s = Amount("seconds", least=1, most=366 * 86_400, data_key="for", required=True, metadata={"example": "1h"})
    every_s = Amount("seconds", least=1, most=366 * 86_400, data_key="every", required=True, metadata={"example": "1d"})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Any:
        """Hand the rules a value, not a dictionary."""
        limits = Limits(**{name: data[name] for name in AMOUNTS if name in data})
        return Burst(limits, data["for_s"], data["every_s"])


class NewQuotaSchema(Strict):
    """A quota, whole: what is left out is without a limit."""

    hard = fields.Nested(LevelSchema)
    soft = fields.Nested(LevelSchema)
    burst = fields.Nested(BurstSchema)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> QuotaSpec:
        """Hand the rules a value, not a dictionary."""
        return QuotaSpec(**data)


class UsageSchema(Schema):
    """What is held at once, and jobs that have not ended."""

    held = fields.Nested(AmountsSchema)
    jobs = fields.Integer()


class QuotaSchema(Schema):
    """A quota, what holds of it now, and how much of it is used."""

    hard = fields.Nested(AmountsSchema, attribute="quota.hard")
    hard_jobs = fields.Integer(attribute="quota.hard_jobs", allow_none=True)
    soft = fields.Nested(AmountsSchema, attribute="quota.soft")
    soft_jobs = fields.Integer(attribute="quota.soft_jobs", allow_none=True)
    burst = fields.Nested(AmountsSchema, attribute="quota.burst")
    burst_for_s = fields.Integer(attribute="quota.burst_s")
    burst_every_s = fields.Integer(attribute="quota.burst_every_s")
    most = fields.Nested(AmountsSchema, metadata={"description": "what may be held at once now, burst included"})
    usage = fields.Nested(UsageSchema)
    burst_until = fields.AwareDateTime(default_timezone=UTC, allow_none=True)
    soft_exceeded_at = fields.AwareDateTime(default_timezone=UTC, attribute="quota.soft_exceeded_at", allow_none=True)
    version = fields.Integer(attribute="quota.version")
