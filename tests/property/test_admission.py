"""Nobody ever gets beyond a quota, a limit or a pool's books, whoever starts and ends in whatever order."""

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from scheduler.admission import Admission
from scheduler.snapshot import UNLIMITED, Account, Amounts, JobClass, Pool, Queue, Role
from scheduler.usage import Usage
from tests.support.books import Books
from tests.support.clusters import a_node, a_request
from tests.support.examples import CHEAP

seeds = st.integers(0, 2**32 - 1)
NODES = [a_node(cpus=8, gib=8, gpus=8)]
ROLES = (Role(a_request()),)


def _limit(random: Random, most: int = 8) -> Amounts:
    return Amounts(*(random.choice([UNLIMITED, random.randint(0, most)]) for _ in range(3)))


def _small(random: Random, most: int) -> Amounts:
    return Amounts(*(random.randint(0, most) for _ in range(3)))


def _pools(random: Random) -> list[Pool]:
    names = [f"c{number}" for number in range(random.randint(1, 5))]
    return [
        Pool(
            name,
            name,
            random.choice(["", *names[:place]]) if place else "",
            nominal=_small(random, 6),
            lends=_limit(random, 4),
            borrows=_limit(random, 4),
        )
        for place, name in enumerate(names)
    ]


def _accounts(random: Random) -> list[Account]:
    made = [
        Account("org", most=_limit(random)),
        Account("a", "org", most=_limit(random)),
        Account("b", most=_limit(random)),
    ]
    return [*made, Account("a/u", "a", most=_limit(random))]


def _queues(random: Random, pools: list[Pool]) -> list[Queue]:
    return [
        Queue(
            f"q{number}",
            f"q{number}",
            pool_id=random.choice(["", *(pool.id for pool in pools)]),
            most=_limit(random),
            most_running=random.choice([UNLIMITED, random.randint(0, 3)]),
        )
        for number in range(3)
    ]


def _some_class(random: Random) -> JobClass:
    return JobClass(random.choice("abc"), f"q{random.randint(0, 2)}", ROLES, user_id=random.choice("uv"))


@given(seeds)
@CHEAP
def test_exactly_those_are_admitted_with_whom_every_limit_holds(seed: int) -> None:
    random = Random(seed)
    pools, accounts = _pools(random), _accounts(random)
    queues = _queues(random, pools)
    admission, books = Admission(NODES, queues, pools, accounts), Books(pools, accounts, queues)
    for _ in range(12):
        if books.running and random.random() < 0.3:
            gone = books.running.pop(random.randrange(len(books.running)))
            admission.give(*gone)
        job_class, amounts = _some_class(random), _small(random, 3)
        admitted = admission.refusal(job_class, amounts) is None
        assert admitted == books.allows(job_class, amounts)
        if admitted:
            admission.take(job_class, amounts)
            books.running.append((job_class, amounts))
    for pool in pools:
        assert admission.cohorts.used(pool.id) == tuple(books.used(pool.id, resource) for resource in range(3))


@given(seeds)
@CHEAP
def test_what_is_taken_beyond_every_limit_is_given_back_to_the_last_bit(seed: int) -> None:
    """What runs, runs, also when limits were cut or nodes lost: books in debt are kept as exactly as others."""
    random = Random(seed)
    pools = _pools(random)
    queues = _queues(random, pools)
    admission = Admission(NODES, queues, pools)
    kept = [(_some_class(random), _small(random, 9)) for _ in range(random.randint(0, 4))]
    for job_class, amounts in kept:
        admission.take(job_class, amounts)
    before, mark = _state(admission, pools), admission.mark()
    gone = random.sample(kept, random.randint(0, len(kept)))
    more = [(_some_class(random), _small(random, 9)) for _ in range(random.randint(0, 6))]
    for job_class, amounts in gone:
        admission.give(job_class, amounts)
    for job_class, amounts in more:
        admission.take(job_class, amounts)
    if random.random() < 0.5:
        admission.rollback(mark)
    else:
        for job_class, amounts in random.sample(more, len(more)):
            admission.give(job_class, amounts)
        for job_class, amounts in gone:
            admission.take(job_class, amounts)
    assert _state(admission, pools) == before


def _state(admission: Admission, pools: list[Pool]) -> object:
    usage = admission.usage
    classes = [JobClass(project, "q0", ROLES, user_id=user) for project in "abc" for user in "uv"]
    return (
        [(holder.held, holder.jobs) for made in classes for holder in usage.accounts_of(made)],
        [(usage.queue(f"q{number}").held, usage.queue(f"q{number}").jobs) for number in range(3)],
        [(admission.cohorts.used(pool.id), admission.cohorts.available(pool.id)) for pool in pools],
    )


@given(seeds)
@CHEAP
def test_turns_only_come_later_as_jobs_start(seed: int) -> None:
    random = Random(seed)
    pools = _pools(random)
    admission = Admission(NODES, _queues(random, pools), pools)
    classes = [(_some_class(random), _small(random, 3)) for _ in range(4)]
    before = [admission.turn(*one) for one in classes]
    for _ in range(6):
        admission.take(_some_class(random), _small(random, 3))
        after = [admission.turn(*one) for one in classes]
        assert all(now >= then for now, then in zip(after, before, strict=True))
        before = after


# Fair share: invariant 8


def _tree(random: Random) -> list[Account]:
    """Organisations, projects, users, with use in steps of a twentieth, so that ties are ties."""
    made: list[Account] = []
    for org in range(random.randint(1, 3)):
        made.append(Account(f"o{org}", weight=random.randint(1, 4)))
        for project in range(random.randint(0, 3)):
            project_id = f"o{org}p{project}"
            made.append(Account(project_id, f"o{org}", random.randint(1, 4), random.randint(0, 2) / 20))
            made.extend(
                Account(f"{project_id}/u{user}", project_id, random.randint(1, 4), random.randint(0, 8) / 20)
                for user in range(random.randint(1, 3))
            )
    return made


def _users(tree: list[Account]) -> list[JobClass]:
    return [
        JobClass(project, "q", ROLES, user_id=user)
        for project, _, user in (account.id.partition("/") for account in tree)
        if user
    ]


def _under(account_id: str, user: JobClass) -> bool:
    return f"{user.project_id}/{user.user_id}".startswith(account_id)


@given(seeds)
@CHEAP
def test_more_past_use_never_raises_a_rank_and_more_weight_never_lowers_one(seed: int) -> None:
    random = Random(seed)
    tree = _tree(random)
    users = _users(tree)
    place = random.randrange(len(tree))
    changed = tree[place]
    used_more = replace(changed, used=changed.used + random.random())
    weighs_more = replace(changed, weight=changed.weight + random.randint(1, 5))
    paths = {user: Usage(NODES, tree).path(user) for user in users}
    worse = Usage(NODES, [*tree[:place], used_more, *tree[place + 1 :]])
    better = Usage(NODES, [*tree[:place], weighs_more, *tree[place + 1 :]])
    for one in users:
        if not _under(changed.id, one):
            continue
        for other in users:
            if _under(changed.id, other):
                continue
            if paths[other] < paths[one]:
                assert worse.path(other) < worse.path(one)
            if paths[one] < paths[other]:
                assert better.path(one) < better.path(other)


@given(seeds)
@CHEAP
def test_if_an_account_beats_its_sibling_all_its_users_do(seed: int) -> None:
    random = Random(seed)
    tree = _tree(random)
    usage = Usage(NODES, tree)
    users = _users(tree)
    ranked = sorted(users, key=usage.path)
    for one in tree:
        for other in tree:
            if one.parent_id != other.parent_id or "/" in one.id or one.id == other.id:
                continue
            if _use(tree, one) * other.weight < _use(tree, other) * one.weight:
                last = max((ranked.index(user) for user in users if _under(one.id, user)), default=-1)
                first = min((ranked.index(user) for user in users if _under(other.id, user)), default=len(users))
                assert last < first


def _use(tree: list[Account], account: Account) -> int:
    """Past use of a subtree, in twentieths."""
    children = (one for one in tree if one.parent_id == account.id)
    return round(account.used * 20) + sum(_use(tree, child) for child in children)
