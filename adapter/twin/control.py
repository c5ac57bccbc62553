"""The control address of a twin: the call log, the faults in force, the tickets. Plain HTTP for loopback."""

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from adapter.core.errors import Stop
from adapter.twin import calls, faults, limits
from adapter.twin.deliveries import Delivery
from adapter.twin.dialects import Dialect, Manner
from adapter.twin.life import Happening, Status, Ticket
from adapter.twin.lines import Log, line
from adapter.twin.tickets import Books, Refusal


@dataclass(frozen=True, slots=True)
class Control:
    """The control address of one twin."""

    log: calls.CallLog
    plan: faults.Plan
    books: Books
    notifications: Log[Delivery]

    def application(self) -> web.Application:
        app = web.Application(middlewares=[explained])
        app.router.add_get("/twin/calls", self._get_calls)
        app.router.add_get("/twin/summary", self._get_summary)
        app.router.add_get("/twin/faults", self._get_faults)
        app.router.add_post("/twin/faults", self._post_faults)
        app.router.add_delete("/twin/faults", self._delete_faults)
        app.router.add_get("/twin/tickets", self._get_tickets)
        app.router.add_post("/twin/tickets/{reference}", self._post_ticket)
        app.router.add_get("/twin/changes", self._get_changes)
        app.router.add_get("/twin/notifications", self._get_notifications)
        app.router.add_post("/twin/notify", self._post_notify)
        return app

    async def _get_calls(self, request: web.Request) -> web.Response:
        return _lines(line(call) for call in self.log.since(since(request)))

    async def _get_summary(self, _: web.Request) -> web.Response:
        return web.json_response(calls.summary(self.log))

    async def _get_faults(self, _: web.Request) -> web.Response:
        return web.json_response([{**faults.to_json(fault), "times": left} for fault, left in self.plan.left()])

    async def _post_faults(self, request: web.Request) -> web.Response:
        for fault in faults.from_json(await _json(request)):
            self.plan.add(fault)
        return web.Response(status=204)

    async def _delete_faults(self, _: web.Request) -> web.Response:
        self.plan.clear()
        return web.Response(status=204)

    async def _get_tickets(self, _: web.Request) -> web.Response:
        self.books.advance(datetime.now(UTC))
        return web.json_response([_shown(ticket) for ticket in self.books.tickets.values()])

    async def _post_ticket(self, request: web.Request) -> web.Response:
        given = await _json(request)
        if not isinstance(given, dict) or set(given) != {"status"} or given["status"] not in list(Status):
            raise Stop(f'an object {{"status": …}} is needed with one of {", ".join(Status)}')
        reference, status = request.match_info["reference"], Status(given["status"])
        found = self.books.put(reference, status, now=datetime.now(UTC))
        if isinstance(found, Refusal):
            return web.json_response({"problems": [found.text]}, status=404)
        return web.json_response(_shown(found))

    async def _get_notifications(self, request: web.Request) -> web.Response:
        return _lines(line(entry) for entry in self.notifications.since(since(request)))

    async def _post_notify(self, request: web.Request) -> web.Response:
        wish = _wish(await _json(request))
        found = self.books.happen(
            wish["reference"], wish["kind"], now=datetime.now(UTC), code=wish["code"], manner=wish["manner"]
        )
        if isinstance(found, Refusal):
            return web.json_response({"problems": [found.text]}, status=404)
        return web.json_response(_shown(found))

    async def _get_changes(self, request: web.Request) -> web.Response:
        self.books.advance(datetime.now(UTC))
        return _lines(
            json.dumps({**asdict(change), "at": change.at.isoformat(), "ticket": _shown(change.ticket)}) + "\n"
            for change in self.books.changes[since(request) :]
        )


def since(request: web.Request) -> int:
    """The sequence number after which entries are wanted. Raises Stop if it is none."""
    text = request.query.get("since", "0")
    if not text.isdecimal() or len(text) > 18:
        raise Stop("since: a sequence number is needed")
    return int(text)


def _wish(given: object) -> dict[str, Any]:
    """The checked body of POST /twin/notify: what is to happen, and how it is notified. Raises Stop with all faults."""
    if not isinstance(given, dict):
        raise Stop('an object {"reference": …, "kind": …} is needed')
    wrong = []
    if not isinstance(given.get("reference"), str):
        wrong.append("reference: a buyerFaultReference is needed")
    if given.get("kind") not in list(Happening):
        wrong.append(f"kind: must be one of {', '.join(Happening)}")
    code = given.get("code", "")
    if not isinstance(code, str):
        wrong.append("code: a closure code is needed")
    elif problem := limits.code(code):
        wrong.append(f"code: {problem}")
    wrong += [
        f"{name}: must be true or false" for name in ("repeated", "late") if given.get(name) not in (None, True, False)
    ]
    spoken = given.get("dialects")
    if spoken is not None and not (isinstance(spoken, list) and all(name in list(Dialect) for name in spoken)):
        wrong.append(f"dialects: must be a list of {', '.join(Dialect)}")
    known = {"reference", "kind", "code", "repeated", "late", "dialects"}
    wrong += [f"{str(name)[:40]}: unknown; there are {', '.join(sorted(known))}" for name in given.keys() - known]
    if wrong:
        raise Stop(*wrong)
    dialects = None if spoken is None else tuple(map(Dialect, spoken))
    manner = Manner(given.get("repeated"), given.get("late"), dialects)
    return {**given, "kind": Happening(given["kind"]), "code": given.get("code", "FR"), "manner": manner}


def _lines(lines: Iterable[str]) -> web.Response:
    return web.Response(text="".join(lines), content_type="application/x-ndjson")


@web.middleware
async def explained(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turns Stop into 400 with everything that is wrong; 404 names what there is."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        there = [resource.canonical for resource in request.app.router.resources()]
        return web.json_response({"problems": [f"{request.path}: nothing is here"], "there": there}, status=404)
    except Stop as stop:
        return web.json_response({"problems": stop.problems}, status=400)


async def _json(request: web.Request) -> object:
    try:
        text = await request.text()
    except (UnicodeError, LookupError, web.RequestPayloadError) as error:  # LookupError: no charset of that name
        raise Stop(f"not text: {error}") from error
    return limits.from_json(text)


def _shown(ticket: Ticket) -> dict[str, object]:
    """A ticket for display, without the buyer's report, which has personal data."""
    shown = {name: value for name, value in asdict(ticket).items() if name != "report"}
    history = [{"at": update.at.isoformat(), "by": update.by, "text": update.text} for update in ticket.updates]
    return {**shown, "since": ticket.since.isoformat(), "updates": history}
