"""The captures that a report shows one by one: the newest of a model, and those that it was least sure of.

Of those that may be shown in the end the words are kept and what the picture is drawn from, nothing else of their records: a
gallery's memory is that of its cards, however many records pass.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

from edge.client.captures import page
from edge.client.captures.charts import moment, text
from edge.client.captures.pictures import picture_entry, picture_of, png
from edge.client.captures.reading import Refusal
from edge.client.captures.records import Entry, RecordError
from edge.client.captures.selection import Chosen, Refusals

SIDE = 96  # pixels of a thumbnail
LEAST_CERTAIN = 12
MAX_WAITING_BYTES = 64 << 10  # of an input that is kept until its picture is drawn
MAX_TOLD_CHARACTERS = 400  # of what is told of a capture where the pointer is on it
LOW = 0.6  # confidence that is marked


@dataclass
class Card:
    """A capture as the page shows it. The picture is drawn when the page is made, unless its bytes are many."""

    capture_id: str
    time: datetime
    origin: str
    label: str
    sure: float | None
    told: str
    reasons: str
    blank: str  # what stands in the picture's place where there is none
    entry: Entry | None  # what it is drawn from
    picture: bytes = b""  # a PNG, once it is drawn

    def draw(self, refusals: Refusals) -> "Card":
        """Have the picture; one that cannot be read is told of, and has its place left blank."""
        entry, self.entry = self.entry, None
        if entry is not None:
            try:
                self.picture = png(picture_of(entry.array(), SIDE))
            except RecordError as error:
                refusals.add(Refusal(self.origin, 0, f"capture {self.capture_id}: {error}"))
                self.blank = "its picture cannot be read"
        return self


def card_of(chosen: Chosen) -> Card:
    """The card of a capture, not yet drawn."""
    capture, said = chosen.capture, chosen.prediction
    entry = picture_entry(capture)
    first = capture.inputs[0] if capture.inputs else None
    told = ", ".join((capture.capture_id, moment(capture.time), capture.device, *capture.reasons))
    return Card(
        capture.capture_id,
        capture.time,
        capture.origin,
        chosen.label,
        said.confidence if said is not None else None,
        told[: MAX_TOLD_CHARACTERS + 1],  # one more: that it was cut is shown
        ", ".join(capture.reasons).replace("_", " ")[: MAX_TOLD_CHARACTERS + 1],
        f"{first.name} {first.content_type}" if first else "no input",
        entry,
    )


@dataclass
class Gallery:
    """The newest captures of a model, and those that it was least sure of."""

    most: int
    newest: list[tuple[datetime, int, Card]] = field(default_factory=list)  # a heap, the oldest on top
    unsure: list[tuple[float, int, Card]] = field(default_factory=list)  # a heap, the surest on top
    numbers: Iterator[int] = field(default_factory=count)

    def add(self, chosen: Chosen, refusals: Refusals) -> None:
        """Keep it, if it is among them so far."""
        number, said = next(self.numbers), chosen.prediction
        is_new = len(self.newest) < self.most or (chosen.capture.time, number) > self.newest[0][:2]
        sure = said.confidence if said is not None else None
        is_unsure = sure is not None and (len(self.unsure) < LEAST_CERTAIN or -sure > self.unsure[0][0])
        if not (is_new or is_unsure):
            return
        card = card_of(chosen)
        if card.entry is not None and not card.entry.reference and len(card.entry.content()) > MAX_WAITING_BYTES:
            card.draw(refusals)
        if is_new:
            heapq.heappush(self.newest, (chosen.capture.time, number, card))
            if len(self.newest) > self.most:
                heapq.heappop(self.newest)
        if is_unsure and sure is not None:
            heapq.heappush(self.unsure, (-sure, number, card))
            if len(self.unsure) > LEAST_CERTAIN:
                heapq.heappop(self.unsure)

    def shown(self, refusals: Refusals) -> Iterator[str]:
        """Both, drawn; a capture that is among both is drawn once."""
        unsure = [card.draw(refusals) for _, _, card in sorted(self.unsure, key=lambda one: (-one[0], one[1]))]
        newest = [card.draw(refusals) for _, _, card in sorted(self.newest, key=lambda one: one[:2], reverse=True)]
        if unsure:
            yield page.wide("Least certain", _gallery(unsure))
        yield page.wide("Newest", _gallery(newest))


def _gallery(cards: list[Card]) -> str:
    return f'<div class="gallery">{"".join(map(_card, cards))}</div>'


def _card(card: Card) -> str:
    picture = (
        f'<img src="{page.data_uri(card.picture)}" alt="input of {text(card.capture_id)}">'
        if card.picture
        else f'<div class="blank">{text(card.blank)}</div>'
    )
    low = ' class="low"' if card.sure is not None and card.sure < LOW else ""
    confidence = f"<i{low}>{card.sure:.2%}</i>" if card.sure is not None else ""
    reasons = f"<span>{text(card.reasons, 60)}</span>" if card.reasons else ""
    return (
        f'<figure class="card" title="{text(card.told, MAX_TOLD_CHARACTERS)}">{picture}<figcaption>{confidence}'
        f"<b>{text(card.label, 40) or 'none'}</b><span>{moment(card.time)}</span>{reasons}</figcaption></figure>"
    )
