"""What is found out about a server, once per process, before the requests of a run.

First, what it says about itself. Then, if the run is long enough to make that worthwhile: whether
it accepts images as hashes, in which way it gives likelihoods, and whether its answers depend on
its state. The requests for this are not counted, and their answers are not stored.
"""

import logging
import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.errors import UserError
from lever_plus.vlm.backends import canary
from lever_plus.vlm.backends.canary import Dependence
from lever_plus.vlm.backends.chat import Chat, Known
from lever_plus.vlm.backends.likelihoods import ECHOES, Likelihoods
from lever_plus.vlm.backends.pictures import Pictures, takes_uuids, urls
from lever_plus.vlm.backends.replies import answer_of
from lever_plus.vlm.backends.servers import Route, Servers, opened
from lever_plus.vlm.backends.told import HELLO, Told
from lever_plus.vlm.backends.work import Asking, Result, Work
from lever_plus.vlm.request import Kind, VlmIdentity
from lever_plus.vlm.usage import Usage

LOG: Final = logging.getLogger("lever_plus")
ENOUGH: Final = 16
"""From so many prompts on it is worthwhile to find out more than what the server says."""
ONE_TOKEN: Final[dict[str, Any]] = {"max_tokens": 1}


class Start:
    """What a process has found out about a server.

    Attributes:
        known: What each conversation with the server needs.
        likelihoods: The way in which it gives likelihoods.
        dependence: For each kind that was tried, how many results depended on the server's state.
    """

    def __init__(self) -> None:
        """Start with no knowledge."""
        self.known, self.likelihoods = Known(), Likelihoods()
        self.dependence: dict[Kind, Dependence] = {}
        self._pictures_tried = False

    async def tell(self, params: OpenAiVlmParams) -> Told:
        """Return what the server says about itself.

        Raises:
            UserError: The server cannot be reached, or is busy.
        """
        if self.known.told is None:
            async with opened(params, 1) as servers:
                return await self._trial(params, servers).tell()
        return self.known.told

    async def find_out(
        self, params: OpenAiVlmParams, servers: Servers, work: Work[Result], at_once: int
    ) -> None:
        """Find out what is not known yet and matters for a run.

        Args:
            params: Settings of the VLM.
            servers: The open servers.
            work: The requests of the run.
            at_once: How many requests are sent at once.

        Raises:
            UserError: The server cannot be reached, offers no likelihoods, or its answers depend on
                its state and `vlm.canary` is "refuse".
        """
        chat = self._trial(params, servers)
        told = await chat.tell()
        if len(work.units) < ENOUGH:
            return
        first = work.asking(work.units[0])
        if not self._pictures_tried and told.version is not None and urls(first.turns):
            ask = partial(chat.complete, options=ONE_TOKEN)
            self.known.pictures = Pictures() if await takes_uuids(ask, first.turns) else None
            self._pictures_tried = True
        if work.kind == "log_likelihood" and not self.likelihoods.way:
            await self.likelihoods.choose(chat, map(work.asking, work.units))
        if params.canary != "off" and work.kind not in self.dependence:
            await self._try_state(params, servers, work, at_once)

    async def describe(self, params: OpenAiVlmParams) -> str:
        """Describe the server: what it says about itself, and how it gives likelihoods.

        One prompt without an image is tried.

        Raises:
            UserError: The server cannot be reached, or is busy.
        """
        async with opened(params, 1) as servers:
            chat = self._trial(params, servers)
            told = await chat.tell()
            if told.version is None:
                return f"it does not tell its version, so likelihoods are computed by {ECHOES}"
            reply = await chat.complete(HELLO, {"max_tokens": params.max_new_tokens})
            own = answer_of(reply, params.model, params.max_new_tokens, chat.where).strip()
            tried = [
                Asking(HELLO, [answer], "reply to a trial")
                for answer in (own, "Yes", "a")
                if answer
            ]
            try:
                await self.likelihoods.choose(chat, tried)
            except UserError as error:
                return f"{told}; it offers no likelihoods, which InfoScore needs ({error})"
            return f"{told}; likelihoods by {self.likelihoods.shown}"

    def _trial(self, params: OpenAiVlmParams, servers: Servers) -> Chat:
        return Chat(params, Route(servers, 0), self.known, Usage())

    async def _try_state(
        self, params: OpenAiVlmParams, servers: Servers, work: Work[Result], at_once: int
    ) -> None:
        numbers = canary.chosen(len(work.units))
        if not numbers:
            return
        # Only one server is tried: each has its own state.
        salt, one = secrets.token_hex(8), params.urls[:1]

        def chat() -> Chat:
            return Chat(params, Route(servers, 0), self.known, Usage(), salt)

        async def ask(units: Sequence[int], side_by_side: int) -> dict[int, Result]:
            some = [work.units[n] for n in units]
            found = await work.run([chat], one, some, side_by_side)
            return {n: found[work.units[n][0]] for n in units}

        found = await canary.tried(ask, numbers, at_once)
        where = servers.each[0].shown
        if found.otherwise and params.canary == "refuse":
            raise UserError(
                f"{where}: {found} requests got other answers when they were asked again, at the "
                "same time as others or in another order: start the server so that answers do not "
                "depend on its batches (vLLM: VLLM_BATCH_INVARIANT=1, or dtype float32), or set "
                "vlm.canary to mark, which only stores a note with the answers."
            )
        if found.otherwise:
            LOG.warning(
                "%s: %s requests got other answers when they were asked again, at the same time as "
                "others or in another order: answers depend on the server's state, and a note of "
                "that is stored with them.",
                *(where, found),
            )
        self.dependence[work.kind] = found

    def recorded(self, kind: Kind, identity: VlmIdentity) -> VlmIdentity:
        """Return the identity under which results are stored, and how they were made."""
        notes = [] if kind == "answer" else [f"likelihoods by {self.likelihoods.shown}"]
        found = self.dependence.get(kind)
        if found and found.otherwise:
            notes.append("depending on the server's state")
        return {**identity, "generation": ", ".join([identity["generation"], *notes])}
