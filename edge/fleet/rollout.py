"""How an operator changes a fleet's document: a new version, in stages, further, and back. Pure.

The rule that held for all devices before a new version stays behind it: it serves on the devices that the new rule leaves
out, and is what `take_back` goes to.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from edge.fleet.document import Document, DocumentFault, Rule, Where

EVERYWHERE = Where()


def _fallback(rules: tuple[Rule, ...], package: str) -> tuple[Rule, ...]:
    """The rules behind a new one, up to the first that holds everywhere."""
    kept: list[Rule] = []
    for rule in rules:
        if rule.package != package:
            kept.append(rule)
            if rule.where == EVERYWHERE:
                break
    return tuple(kept)


def deploy(
    before: Document | None, deployment: str, packages: Mapping[str, str], where: Where, *, rollback: bool
) -> Document:
    """The document by which `packages`, by alias, serve on the devices that `where` means."""
    models = dict(before.models) if before is not None else {}
    if where.percent < 100 and not where.seed:
        where = replace(where, seed=deployment)
    for alias, package in packages.items():
        rest = _fallback(models.get(alias, ()), package)
        if where == EVERYWHERE:
            rest = tuple(rule for rule in rest if rule.where == EVERYWHERE)
        models[alias] = (Rule(package, where), *rest)
    return Document(deployment, models, rollback)


def promote(before: Document, deployment: str, percent: float) -> Document:
    """The document by which what is being rolled out reaches more devices.

    Raises:
        DocumentFault: nothing is, or it has reached as many.
    """
    models = dict(before.models)
    for alias, rules in before.models.items():
        where = rules[0].where
        if where.percent < 100:
            if percent <= where.percent:
                raise DocumentFault(f"has {alias} at {where.percent:g} % already; expected more than that")
            where = replace(where, percent=percent, seed=where.seed if percent < 100 else "")
            rest = rules[1:] if where != EVERYWHERE else tuple(r for r in rules[1:] if r.where == EVERYWHERE)
            models[alias] = (Rule(rules[0].package, where), *rest)
    if models == before.models:
        raise DocumentFault("has no model that is rolled out in part; `fleet deploy --percent` begins that")
    return Document(deployment, models, before.rollback)


def take_back(before: Document, deployment: str, aliases: Collection[str] = ()) -> Document:
    """The document by which the version before serves everywhere; of `aliases`, or of all that have one.

    Raises:
        DocumentFault: there is none.
    """
    models = dict(before.models)
    for alias in aliases or list(before.models):
        if alias not in models:
            raise DocumentFault(f"has no alias {alias}")
        if len(models[alias]) > 1:
            models[alias] = models[alias][1:]
        elif aliases:
            raise DocumentFault(f"has no version of {alias} before {models[alias][0].package}")
    if models == before.models:
        raise DocumentFault("has no version before for any alias")
    return Document(deployment, models, before.rollback)


def remove(before: Document, deployment: str, aliases: Collection[str]) -> Document:
    """The document without some aliases.

    Raises:
        DocumentFault: it has one of them not.
    """
    missing = sorted(set(aliases) - set(before.models))
    if missing:
        raise DocumentFault(f"has no alias {missing[0]}")
    return Document(deployment, {a: r for a, r in before.models.items() if a not in aliases}, before.rollback)


def next_name(before: str, day: str) -> str:
    """A name for the next deployment: the day, and a number where the one before has the same."""
    if before != day and not before.startswith(day + "-"):
        return day
    tail = before.removeprefix(day).removeprefix("-")
    return f"{day}-{int(tail) + 1 if tail.isdigit() else 2}"
