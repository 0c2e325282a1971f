"""The wheel as an SVG, drawn by hand: six steps around the hub, the water that turns it, and the arrow back."""

from __future__ import annotations

from math import cos, pi, sin

from markupsafe import Markup, escape

from noria.web.facts import STEPS, Wheel

SIZE = 440
CENTRE = SIZE / 2
RADIUS = 150
NODE = 46
TITLES = {"development": "develop-\nment", "deployment": "deploy-\nment", "monitoring": "monitor-\ning"}


def _at(place: float, radius: float = RADIUS) -> tuple[float, float]:
    """The point of a place on the wheel: 0 is the top, clockwise, six places round."""
    angle = place * pi / 3 - pi / 2
    return CENTRE + radius * cos(angle), CENTRE + radius * sin(angle)


def wheel(state: Wheel) -> Markup:
    """The wheel's drawing. Colours come from the page's style sheet by class, so it follows light, dark and print."""
    parts = [Markup('<svg class="wheel" viewBox="0 0 {0} {0}" role="img" aria-labelledby="wheel-title">').format(SIZE)]
    states = ", ".join(f"{spoke.step} {spoke.state}" for spoke in state.spokes)
    parts.append(Markup('<title id="wheel-title">The wheel: {}</title>').format(states))
    parts.append(
        Markup(
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="6" markerHeight="6" orient="auto-start-reverse">'
            '<path class="tip" d="M0 0L10 5L0 10z"/></marker><marker id="tip-back" viewBox="0 0 10 10" refX="8" refY="5" '
            'markerWidth="6" markerHeight="6" orient="auto-start-reverse"><path class="tip-back" d="M0 0L10 5L0 10z"/></marker></defs>'
        )
    )
    for place in range(6):
        x, y = _at(place, RADIUS - NODE)
        parts.append(Markup('<line class="spoke" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(CENTRE, CENTRE, _n(x), _n(y)))
    parts.append(Markup('<circle class="hub" cx="{0}" cy="{0}" r="40"/>').format(CENTRE))
    parts += [_arc(place) for place in range(6)]
    if state.back is not None:
        parts.append(_back("monitoring", state.back.to))
    parts.append(Markup('<text class="hub-text" x="{0}" y="{1}">turn</text>').format(CENTRE, CENTRE + 5))
    parts += [_node(place, spoke.step, spoke.state) for place, spoke in enumerate(state.spokes)]
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _n(value: float) -> str:
    return f"{value:.1f}"


def _arc(place: int) -> Markup:
    """The rim from one step to the next, in the direction of turning."""
    gap = NODE / RADIUS * 3 / pi + 0.04
    (x1, y1), (x2, y2) = _at(place + gap), _at(place + 1 - gap)
    return Markup('<path class="rim" d="M{} {}A{} {} 0 0 1 {} {}" marker-end="url(#tip)"/>').format(
        _n(x1), _n(y1), RADIUS, RADIUS, _n(x2), _n(y2)
    )


def _back(start: str, end: str) -> Markup:
    """The arrow through the wheel to the step to return to."""
    first, last = STEPS.index(start), STEPS.index(end)
    if first == last:
        x, y = _at(first, RADIUS - NODE - 6)
        return Markup('<circle class="again" cx="{}" cy="{}" r="9"/>').format(_n(x), _n(y))
    (x1, y1), (x2, y2) = _at(first), _at(last)
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    cut = (NODE + 7) / length
    x1, y1, x2, y2 = x1 + (x2 - x1) * cut, y1 + (y2 - y1) * cut, x2 - (x2 - x1) * cut, y2 - (y2 - y1) * cut
    middle = ((x1 + x2) / 2 * 0.45 + CENTRE * 0.55, (y1 + y2) / 2 * 0.45 + CENTRE * 0.55)
    return Markup('<path class="back" d="M{} {}Q{} {} {} {}" marker-end="url(#tip-back)"/>').format(
        _n(x1), _n(y1), _n(middle[0]), _n(middle[1]), _n(x2), _n(y2)
    )


def _node(place: int, step: str, state: str) -> Markup:
    x, y = _at(place)
    lines = TITLES.get(step, step).split("\n")
    made = [Markup('<circle class="node {}" cx="{}" cy="{}" r="{}"/>').format(state, _n(x), _n(y), NODE)]
    top = y + 5 - (len(lines) - 1) * 8.5
    made += [
        Markup('<text class="node-text" x="{}" y="{}">{}</text>').format(_n(x), _n(top + 17 * row), escape(line))
        for row, line in enumerate(lines)
    ]
    return Markup("").join(made)
