"""Which behaviour is switched on, for the platform and for projects; what there is to switch is in `trellis.features`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import ScalarSelect, func, select

from app.core.access import Permission
from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.tenancy.models import FeatureSwitch, Project
from app.tenancy.service import find_project
from trellis.errors import NotFound
from trellis.features import FEATURES


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """A feature as it is: `platform` and `project` are what was said there, None where nothing was."""

    name: str
    description: str
    owner: str
    default: bool
    platform: bool | None
    project: bool | None
    enabled: bool


def list_features(uow: UnitOfWork, project: str = "") -> list[FeatureReport]:
    """Every feature, and whether jobs have it that say nothing: of the platform, or of a project. Raises Invalid."""
    of = find_project(uow, project, Permission.PROJECT_READ).id if project else None
    uow.require(Permission.POLICY_READ)
    wanted = FeatureSwitch.project_id.is_(None) | (FeatureSwitch.project_id == of)
    said = {
        (row.name, row.project_id): row.enabled
        for row in uow.session.execute(select(FeatureSwitch).where(wanted)).scalars()
    }
    return [_report(name, said.get((name, None)), said.get((name, of)) if of else None) for name in FEATURES]


def set_feature(uow: UnitOfWork, name: str, project: str, *, enabled: bool | None) -> FeatureReport:
    """Switch a feature for the platform or one project; None takes back what was said there.

    Raises: NotFound that lists the features there are, Invalid for the project, Forbidden.
    """
    owner = find_project(uow, project, Permission.PROJECT_WRITE) if project else None
    if owner is None:
        uow.require(Permission.POLICY_WRITE)
    if name not in FEATURES:
        raise NotFound(f"there is no feature {name}; there are {', '.join(FEATURES)}")
    owner_id = owner.id if owner else None
    here = FeatureSwitch.project_id.is_(None) if owner_id is None else FeatureSwitch.project_id == owner_id
    statement = select(FeatureSwitch).where(FeatureSwitch.name == name, here).with_for_update()
    switch = uow.session.execute(statement).scalar_one_or_none()
    before = switch.enabled if switch else None
    if switch is None:
        switch = FeatureSwitch(id=new_id(), version=1, name=name, project_id=owner_id)
    if enabled is not None:
        switch.enabled = enabled
        uow.session.add(switch)
    elif before is not None:
        uow.session.delete(switch)
    if enabled != before:
        uow.emit("feature.changed", switch, name=name, before=before, after=enabled)
    uow.session.flush()
    return next(report for report in list_features(uow, project) if report.name == name)


def switched(project: type[Project]) -> ScalarSelect[object]:
    """What is said of features for the project of a statement that selects it, and for the platform: `read_switches`."""
    said = func.jsonb_build_array(FeatureSwitch.name, FeatureSwitch.enabled, FeatureSwitch.project_id.is_not(None))
    here = FeatureSwitch.project_id.is_(None) | (FeatureSwitch.project_id == project.id)
    return select(func.jsonb_agg(said)).where(here).correlate(project).scalar_subquery()


def read_switches(said: Iterable[tuple[str, bool, bool]] | None) -> dict[str, bool]:
    """What `switched` found, the project's word over the platform's."""
    return {name: enabled for name, enabled, _ in sorted(said or (), key=lambda one: one[2])}


def features_of(wished: Mapping[str, bool], said: Mapping[str, bool]) -> list[str]:
    """The features that a job has: by its own word, else by `said`, else by default."""
    known = FEATURES.items()
    return [name for name, feature in known if wished.get(name, said.get(name, feature.default))]


def _report(name: str, platform: bool | None, project: bool | None) -> FeatureReport:
    feature = FEATURES[name]
    enabled = next(word for word in (project, platform, feature.default) if word is not None)
    return FeatureReport(name, feature.description, feature.owner, feature.default, platform, project, enabled)
